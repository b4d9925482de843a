"""All figures of this package at once, for `steer eval`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from steer.data.corpus import tokenize_stories
from steer.data.pairs import Pair
from steer.data.windows import SpanDataset, collate, sentence_ends
from steer.errors import CorpusError
from steer.evaluation.averages import average_figures
from steer.evaluation.bound import bound_figures
from steer.evaluation.contexts import context_figures
from steer.evaluation.decoding import Embed, Progress, cut_spans, draw_spans, encoder_embed
from steer.evaluation.likelihood import compare_interleaved, compare_router, summarize
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
        stories: unseen text.
        pairs: of these stories, see `steer.data.pairs.make_pairs`; their terminals are the sentences. At least two.
        embed: texts -> unit vectors; by default the model's own encoder.
        seed: of spans, groups and samples.

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


def latent_figures(
    model: LatentModel,
    stories: Sequence[str],
    *,
    rows: int = 128,
    spans: int = 6,
    context: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """NLL with own, null and another span's latent, in context and without; reconstruction accuracy; KL; active units.

    See `steer.evaluation.likelihood.summarize` for the names. In the `minihf` layout no latent but the span's own
    stands in its context, and the null arm is the bare base without a latent, as in MiniHF's guidance.

    Args:
        stories: unseen text.
        rows: windows of `spans` spans.
        spans, context: spans per window, tokens before it.
        seed: chooses the windows.
    """
    if not stories:
        raise CorpusError("no stories to evaluate on")
    tokenizer = model.tokenizer
    corpus = tokenize_stories(
        stories,
        lambda t: tokenizer(t, add_special_tokens=False)["input_ids"],
        eos_id=tokenizer.eos_token_id,
        vocab_size=len(tokenizer),
    )
    data = SpanDataset(
        corpus,
        None,
        length=rows,
        spans=spans,
        span_tokens=model.span_tokens,
        context_tokens=context,
        eos_id=tokenizer.eos_token_id,
        partial_prob=0.0,
        ends=sentence_ends(tokenizer),
        seed=seed,
    )
    compare = compare_interleaved if model.layout.keeps_latents else compare_router
    parts, size = [], 8
    for start in range(0, rows, size):
        batch = collate([data[i] for i in range(start, min(rows, start + size))])
        parts.append(compare(model, {k: v.to(model.device) for k, v in batch.items()}))
        if progress:
            progress("latents", min(rows, start + size), rows)
    return summarize(parts, model.span_tokens)
