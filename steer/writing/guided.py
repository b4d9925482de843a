"""Guided writing: draft, pull, write, span by span."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.latents.mixing import mix
from steer.latents.pull import Pull
from steer.noise import RowNoise, derive_seed, row_seeds
from steer.writing.context import check_contexts
from steer.writing.limits import Limits
from steer.writing.opening import open_writer
from steer.writing.proposals import Drafts
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import Span


@dataclass(frozen=True)
class Written:
    """What was written in one row.

    Attributes:
        ids: token ids, special tokens included.
        text: the written part alone.
        spans: text of each span.
        latents: `[n, z_dim]`, what each span was written from; zeros where nothing steered.
        drafts: `[n, z_dim]`, the model's own proposals; zeros where none was needed.
        ended: whether the story ended.
        context: the visible token ids that were fed.
    """

    ids: tuple[int, ...]
    text: str
    spans: tuple[str, ...]
    latents: Tensor = field(repr=False)
    drafts: Tensor = field(repr=False)
    ended: bool = False
    context: tuple[int, ...] = field(default=(), repr=False)


def write_guided(
    model: Any,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    *,
    pulls: Sequence[Pull] = (),
    spans: int = 6,
    seeds: Sequence[int] | int = 0,
    sampling: SamplingConfig | None = None,
    scale: Tensor | float | None = None,
    rescale: Literal["mean", "none", "draft"] | float = "mean",
    method: Literal["linear", "slerp"] = "linear",
    noise: float = 0.0,
    limits: Limits | None = None,
    drafts: Drafts = "write",
) -> list[Written]:
    """Write `spans` spans in each row, pulled towards latents by their schedules: annealed guidance.

    It is BigVAE's `plan_2` with any schedule. At each span the model drafts its own continuation, the draft's latent is
    mixed with the pulls, and the span is written from the mix. A step at which every weight of a row is zero is written
    unguided; one whose pulls sum to weight one needs no draft and makes none.

    Args:
        model: a `LatentModel`.
        contexts: visible text, or token ids, per row. This is all that the model ever sees besides what it writes.
        pulls: latents with schedules `[spans]`; see `steer.latents.pull.Pull`.
        spans: how many to write.
        seeds: one per row, or one from which each row's is derived.
        sampling: settings; the default is temperature 0.8.
        scale: classifier-free guidance: a number, or a schedule `[spans]`; None or 1 does without.
        rescale, method: see `steer.latents.mixing.mix`.
        noise: factor on the bridge noise in latent space.
        limits: what may not be written, see `steer.writing.limits.Limits`.
        drafts: how the model drafts: `write` writes a span and encodes it, `head` asks the draft head
            (`steer.heads.prior`), which saves half of the tokens.

    Raises:
        GuidanceError: a schedule is shorter than `spans`, a pull does not fit the model or the rows, or drafts are to
            come from a head that the model has not.
        TextError: a context is not valid Unicode, or one text came where a list is expected.
    """
    check_contexts(contexts)
    if spans < 1:
        raise GuidanceError(f"spans must be at least 1; got {spans}")
    for pull in pulls:
        if pull.weights.shape[-1] < spans:
            raise GuidanceError(
                f"a pull's schedule has {pull.weights.shape[-1]} steps for {spans} spans; make it with "
                f"make_schedule(name, {spans})"
            )
        for name, value, width in (
            ("latent", pull.latent, model.latent_config.z_dim),
            ("weights", pull.weights, pull.weights.shape[-1]),
        ):
            if value.shape[-1] != width or (value.ndim == 2 and len(value) not in (1, len(contexts))):
                raise GuidanceError(
                    f"a pull's {name} {list(value.shape)} does not fit {len(contexts)} rows of width {width}; encode "
                    "it with this model"
                )
    rows = row_seeds(seeds, len(contexts))
    if isinstance(scale, Tensor) and scale.ndim > 0:
        scales: list[float] = scale.tolist()
        if len(scales) < spans:
            raise GuidanceError(
                f"the schedule of scales has {len(scales)} steps for {spans} spans; give one per span, or a number"
            )
    else:
        scales = [float(scale) if scale is not None else 1.0] * spans
    with_null = bool(pulls) and any(s != 1 for s in scales)
    writer = open_writer(
        model, contexts, seeds=rows, spans=spans, sampling=sampling, with_null=with_null, limits=limits, drafts=drafts
    )
    bridge = RowNoise(tuple(derive_seed(s, "bridge") for s in rows))
    z_dim = model.latent_config.z_dim
    latents, proposals = [], []
    for step in range(spans):
        z, draft = _latent(
            writer, pulls, step, z_dim, rescale, method, bridge.normal(step, z_dim) if noise else None, noise
        )
        # A row of weight zero is unguided also where its neighbours are not, so that it is written as it would be
        # alone.
        steered = torch.zeros(len(contexts), dtype=torch.bool)
        for pull in pulls:
            steered |= pull.weights[..., step].cpu() > 0
        writer.write(
            z, scale=None if scales[step] == 1 else scales[step], steered=None if bool(steered.all()) else steered
        )
        latents.append(_where(steered, z, len(contexts), z_dim))
        proposals.append(_where(steered, draft, len(contexts), z_dim))
        if all(writer.ended):
            break
    latent_rows, draft_rows = torch.stack(latents, dim=1), torch.stack(proposals, dim=1)
    return [
        Written(
            ids=tuple(writer.ids(row)),
            text=model.to_text(writer.ids(row)),
            spans=tuple(model.to_text(span.ids) for span in writer.written[row]),
            latents=latent_rows[row],
            drafts=draft_rows[row],
            ended=writer.ended[row],
            context=tuple(writer.contexts[row]),
        )
        for row in range(len(contexts))
    ]


def _where(steered: Tensor, z: Tensor | None, rows: int, z_dim: int) -> Tensor:
    """The latents of steered rows, zeros elsewhere."""
    zeros = torch.zeros(rows, z_dim)
    return zeros if z is None else torch.where(steered[:, None], z.cpu(), zeros)


def _latent(
    writer: Any,
    pulls: Sequence[Pull],
    step: int,
    z_dim: int,
    rescale: Any,
    method: Any,
    noise: Tensor | None,
    noise_scale: float,
) -> tuple[Tensor | None, Tensor | None]:
    """The latent to write from (None: unguided), and the draft it was mixed from (None: none was needed)."""
    weights = [pull.weights[..., step] for pull in pulls]
    if not any(bool((w > 0).any()) for w in weights):
        return None, None
    arriving = [p for p, w in zip(pulls, weights, strict=True) if not p.avoid and bool((w >= 1).all())]
    alone = len(arriving) == 1 and all(
        bool((w == 0).all()) for p, w in zip(pulls, weights, strict=True) if p is not arriving[0]
    )
    if alone:
        return arriving[0].latent.expand(writer.rows, z_dim).float(), None
    draft = writer.draft()
    return mix(draft, pulls, step, rescale=rescale, method=method, noise=noise, noise_scale=noise_scale), draft


__all__ = ["Limits", "Span", "Written", "write_guided"]
