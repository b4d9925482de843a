"""All figures of this package at once, for `steer eval`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from steer.data.pairs import Pair
from steer.errors import CorpusError
from steer.evaluation.averages import average_figures
from steer.evaluation.bound import bound_figures
from steer.evaluation.contexts import context_figures
from steer.evaluation.decoding import Embed, Progress, cut_spans, draw_spans, encoder_embed
from steer.evaluation.paths import path_figures
from steer.evaluation.reconstruction import reconstruction_figures
from steer.models.latent_model import LatentModel


def quality_figures(
    model: LatentModel,
    stories: Sequence[str],
    pairs: Sequence[Pair],
    embed: Embed | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Spans written again, bounds, lines, averages, and one latent in two contexts; as many of each as there are pairs.

    Args:
        model: a `LatentModel`.
        stories: unseen text.
        pairs: of these stories, see `steer.data.pairs.make_pairs`; their terminals are the sentences. At least two.
        embed: texts -> unit vectors; by default the model's own encoder.
        seed: of spans, groups and samples.
        progress: called with what is measured, rows done, and rows in all.

    Returns:
        `similarity`, "given" or "encoder"; and `reconstruction`, `bound`, `paths`, `averages` (where enough stories
        are long enough) and `contexts` (of three pairs or more), each as its function's `Returns` says.

    Raises:
        CorpusError: no story is as long as a span.
    """
    cut, count = cut_spans(model, stories), len(pairs)
    spans = draw_spans(cut, count, np.random.default_rng((seed, 4)))
    if not spans:
        raise CorpusError(
            f"none of {len(stories)} stories is as long as a span of {model.span_tokens} tokens; give longer text"
        )
    read = embed or encoder_embed(model)
    figures: dict[str, Any] = {
        "similarity": "given" if embed else "encoder",
        "reconstruction": reconstruction_figures(model, spans, read, progress=progress),
        "bound": bound_figures(model, spans, seed=seed, progress=progress),
        "paths": path_figures(model, [pair.terminal for pair in pairs], read, progress=progress),
    }
    averages = average_figures(model, cut, read, count=count, seed=seed, progress=progress)
    if averages is not None:
        figures["averages"] = averages
    if count > 2:
        figures["contexts"] = context_figures(model, pairs, read, progress=progress)
    return figures
