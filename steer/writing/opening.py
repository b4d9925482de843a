"""The writer that fits a model's layout."""

from collections.abc import Sequence
from typing import Any

from steer.models.positions import check_positions
from steer.writing.context import visible_ids
from steer.writing.interleaved import InterleavedWriter
from steer.writing.limits import Limits
from steer.writing.minihf import MiniHFWriter
from steer.writing.proposals import Drafts
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import Writer


def open_writer(
    model: Any,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    spans: int,
    sampling: SamplingConfig | None = None,
    with_null: bool = False,
    limits: Limits | None = None,
    drafts: Drafts = "write",
) -> Writer:
    """A writer for the model's layout.

    Args:
        model: a `LatentModel`.
        contexts: visible text, or token ids, per row; each is cut on the left to `config.max_context` tokens.
        seeds: one per row; see `steer.noise.derive_seed`.
        spans: how many spans may be written (memory is set aside for them).
        sampling: settings; the default is temperature 0.8.
        with_null: keep a null arm, for classifier-free guidance.
        limits: what may not be written; by default everything may.
        drafts: how `draft` proposes latents: `write` a span and encode it, or ask the draft `head`.

    Raises:
        GuidanceError: drafts are to come from a head that the model has not.
        TextError: see `steer.writing.context.visible_ids`; or there is not a seed per context, or a context and its
            spans exceed the base's table of positions.
    """
    kind = InterleavedWriter if model.layout.keeps_latents else MiniHFWriter
    visible = visible_ids(model, contexts)
    for context in visible:
        check_positions(model, context, spans)
    return kind(model, visible, seeds, sampling or SamplingConfig(), spans, with_null, limits or Limits(), drafts)
