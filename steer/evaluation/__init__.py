"""How good a latent space is, measured on text that the model has not seen.

Spans decoded from their own latents, a bound on the likelihood, lines between latents, their averages, and one latent
in two contexts. Each is a plain function from a model and text to a dict of figures; `quality_figures` gives them all.
Texts are written greedily, so that nothing depends on sampling. Similarities come from `embed`, texts -> unit vectors:
the judge's, or the model's own encoder where the judge is not installed.
"""
