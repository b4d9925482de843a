"""How good a latent space is, measured on text that the model has not seen.

Spans decoded from their own latents, a bound on the likelihood, lines between latents, their averages, and one latent
in two contexts. Each is a plain function from a model and text to a dict of figures; `quality_figures` gives them all.
Texts are written greedily, so that nothing depends on sampling. Similarities come from `embed`, texts -> unit vectors:
the judge's, or the model's own encoder where the judge is not installed.
"""

from steer.evaluation.averages import average_figures
from steer.evaluation.bleu import corpus_bleu
from steer.evaluation.bound import bound_figures, importance_bound, log_weights
from steer.evaluation.contexts import context_figures
from steer.evaluation.latents import quality_figures
from steer.evaluation.paths import path_figures
from steer.evaluation.reconstruction import reconstruction_figures

__all__ = [
    "average_figures",
    "bound_figures",
    "context_figures",
    "corpus_bleu",
    "importance_bound",
    "log_weights",
    "path_figures",
    "quality_figures",
    "reconstruction_figures",
]
