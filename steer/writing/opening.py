"""Opening a writer: contexts checked and cut, positions counted."""

from collections.abc import Sequence

from steer.models.latent_model import LatentModel
from steer.models.positions import check_positions
from steer.writing.context import visible_ids
from steer.writing.limits import Limits
from steer.writing.proposals import Drafts
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import Writer


def open_writer(
    model: LatentModel,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    spans: int,
    sampling: SamplingConfig | None = None,
    with_null: bool = False,
    limits: Limits | None = None,
    drafts: Drafts = "write",
) -> Writer:
    """A writer over contexts.

    Args:
        model: writes.
        contexts: visible text, or token ids, per row; each is cut on the left to `config.max_context` tokens.
        seeds: one per row; see `steer.noise.derive_seed`.
        spans: how many spans may be written (memory is set aside for them).
        sampling: settings; by default those of `SamplingConfig`.
        with_null: make room for classifier-free guidance.
        limits: what may not be written; by default see `Limits`.
        drafts: how `draft` proposes latents: `write` a span and encode it, or ask the draft `head`.

    Raises:
        GuidanceError: drafts are to come from a head that the model has not.
        TextError: see `steer.writing.context.visible_ids`; or there is not a seed per context, or a context and its
            spans exceed the base's table of positions.
    """
    visible = visible_ids(model, contexts)
    for context in visible:
        check_positions(model, context, spans)
    return Writer(
        model,
        visible,
        seeds=seeds,
        sampling=sampling or SamplingConfig(),
        spans=spans,
        with_null=with_null,
        limits=limits or Limits(),
        drafts=drafts,
    )
