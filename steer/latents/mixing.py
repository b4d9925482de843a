"""Pure functions that mix latents, batched and row by row.

`mix` moves a draft towards (or away from) other latents by a schedule. Shapes: B rows, z latent width, n steps.

Laws that hold for every `rescale` and `method`:

- all weights zero: the draft, bit for bit;
- one pull of weight one (and none beside it): that pull's latent, bit for bit;
- the order of the pulls is irrelevant;
- row i of a batch equals that row alone, bit for bit;
- zero and opposite vectors give finite latents.

Mixes are computed in float64 and rounded once to the draft's dtype. Sums over a row add halves in a fixed order: a
library reduction may add in another order for another batch size, and row i would then depend on its neighbours.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from steer.errors import GuidanceError
from steer.latents.pull import Floats, Pull, as_floats, as_pulls, describe, per_row
from steer.latents.rows import row_norm, row_sum, slerp_rows, unit_rows, with_norm
from steer.text import is_number

# Rounds of projected gradient that split a draft between several avoided latents.
_AVOID_ROUNDS = 32


def mix(
    draft: Floats,
    pulls: Sequence[Pull] | Pull,
    step: int,
    *,
    rescale: Literal["mean", "none", "draft"] | float = "mean",
    method: Literal["linear", "slerp"] = "linear",
    noise: Tensor | Generator | None = None,
    noise_scale: float = 1.0,
) -> Tensor:
    """Mix pulls into a draft at one step of their schedules.

    First the draft is moved away from the avoided latents: the part of it that lies in their cone is taken out by
    their weights, and its norm is restored. A draft that does not lean towards an avoided latent is not moved, and one
    that does is not pushed past the point where it leans neither way. Then the draft is averaged with the other pulls,
    its own weight being what theirs leave of 1; pulls that sum to more than 1 are normalised. A mean of codes is
    shorter than the codes, so each row is rescaled last. A row in which nothing is mixed is passed through unscaled.

    Args:
        draft: float `[B, z]`, the model's own proposals.
        pulls: what to mix in; may be empty.
        step: index into every schedule, from 0.
        rescale: norm of the result, per row: "mean", the mean of the norms that went in, weighted as they were;
            "draft", the draft's norm; "none"; or a number.
        method: "linear", or "slerp": along the sphere from the draft to the mean of the pulls.
        noise: standard normal `[B, z]`, or a generator that draws it, for the noise of a Brownian bridge: with pulls of
            total weight t a row gets `noise_scale * sqrt(t * (1 - t)) * noise` before it is rescaled.
        noise_scale: factor on that noise; 1 is the spread of the posterior, q(z given span) = N(mean, I).

    Returns:
        `[B, z]` in the draft's dtype.

    Raises:
        GuidanceError: for shapes that do not fit, a step outside a schedule, or unknown options.
    """
    draft, pulls = as_floats(draft, "a draft"), as_pulls(pulls)
    _check_mix(draft, pulls, step, rescale, method)
    base = draft.double()
    avoids = [_at_step(pull, base, step) for pull in pulls if pull.avoid]
    start = _repel(base, avoids) if avoids else base
    targets = [_at_step(pull, base, step) for pull in pulls if not pull.avoid]
    if not targets:
        return start.to(draft.dtype)

    total = sum((weight for _, weight in targets), torch.zeros_like(base[:, :1]))
    shares = [(latent, weight / total.clamp(min=1)) for latent, weight in targets]
    own = (1 - total).clamp(min=0)
    mean_norm = sum((share * row_norm(latent) for latent, share in shares), own * row_norm(start))
    if method == "linear":
        mixed = sum((share * latent for latent, share in shares), own * start)
    else:
        # Among themselves the pulls are averaged, which has no order; the sphere is only crossed from the draft.
        fraction = total.clamp(min=torch.finfo(total.dtype).tiny)
        aim = sum((weight / fraction * latent for latent, weight in targets), torch.zeros_like(base))
        aim_norm = sum((weight / fraction * row_norm(latent) for latent, weight in targets), torch.zeros_like(total))
        mixed = slerp_rows(start, with_norm(aim, aim_norm), total.clamp(max=1))
    if noise is not None:
        time = total.clamp(max=1)
        mixed = mixed + noise_scale * (time * (1 - time)).sqrt() * _draw(noise, draft).double()

    if rescale == "mean":
        mixed = with_norm(mixed, mean_norm)
    elif rescale == "draft":
        mixed = with_norm(mixed, row_norm(start))
    elif rescale != "none":
        mixed = with_norm(mixed, torch.full_like(total, float(rescale)))
    mixed = torch.where(total == 0, start, mixed)
    for latent, share in shares:
        mixed = torch.where(share == 1, latent, mixed)
    return mixed.to(draft.dtype)


def slerp(a: Floats, b: Floats, t: float | Tensor) -> Tensor:
    """Spherical interpolation per row: the direction turns evenly from `a` to `b`, the norm changes linearly.

    Opposite vectors, between which no shortest way is singled out, are joined over a fixed orthogonal direction; where
    one of the two is zero the interpolation is linear. `t = 0` gives `a` and `t = 1` gives `b`, bit for bit.

    Args:
        a: float `[B, z]` or `[z]`.
        b: the same shape, or one that broadcasts to it.
        t: in [0, 1]; a number, or `[B]` or `[B, 1]`.

    Raises:
        GuidanceError: if the widths differ or `t` is outside [0, 1].
    """
    a, b = as_floats(a, "slerp's first latent"), as_floats(b, "slerp's second latent")
    if not a.ndim or a.shape[-1:] != b.shape[-1:]:
        raise GuidanceError(f"slerp needs latents of one width; got {describe(a)} and {describe(b)}")
    wide = a.double()
    fraction = per_row(t, wide)
    if not bool(((fraction >= 0) & (fraction <= 1)).all()):
        raise GuidanceError(f"slerp interpolates for t in [0, 1]; got {t!r}")
    return slerp_rows(wide, b.double(), fraction).to(a.dtype)


def apply_op(z: Floats, op_source: Floats, op_target: Floats, strength: float = 1.0) -> Tensor:
    """Vector arithmetic: add what leads from the mean of one set of examples to the mean of another, keeping the norm.

    Args:
        z: float `[..., z]`.
        op_source: examples before the operation, `[n, z]` or `[z]`.
        op_target: examples after it, `[m, z]` or `[z]`.
        strength: factor on the difference; 0 returns `z` itself, a negative one undoes the operation.

    Raises:
        GuidanceError: if a set is empty or the widths differ.
    """
    z = as_floats(z, "the latent to move")
    if not is_number(strength):
        raise GuidanceError(f"strength is a number: 0 does nothing, 1 applies the operation; got {strength!r:.80}")
    if strength == 0:
        return z
    moved = z.double() + strength * (_mean_of(op_target, z) - _mean_of(op_source, z))
    return with_norm(moved, row_norm(z.double())).to(z.dtype)


def task_vector(latents: Floats, weights: Floats | None = None) -> Tensor:
    """Mean of sample latents, rescaled to the mean of their norms: `[z]` (MiniHF's `mk_task_vector`).

    Args:
        latents: float `[n, z]`.
        weights: shares `[n]` of the samples in both means, at least 0; by default all count alike.

    Raises:
        GuidanceError: `latents` is no matrix with at least one row, or the weights are not one per row, or all zero.
    """
    latents = as_floats(latents, "a task vector's latents")
    if latents.ndim != 2 or latents.shape[0] == 0:
        raise GuidanceError(f"a task vector needs latents [n, z] with n of at least 1; got {describe(latents)}")
    rows = latents.double()
    shares = torch.ones_like(rows[:, 0]) if weights is None else as_floats(weights, "weights of a task vector").to(rows)
    if shares.shape != rows.shape[:1] or bool((shares < 0).any()) or not shares.sum() > 0:
        raise GuidanceError(f"weights of a task vector are {len(rows)} numbers of at least 0, not all 0; got {weights}")
    mean = (shares[:, None] * rows).sum(0) / shares.sum()
    return with_norm(mean, (shares[:, None] * row_norm(rows)).sum(0) / shares.sum()).to(latents.dtype)


def _repel(draft: Tensor, avoids: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Take out of each row the part that lies in the cone of the avoided latents, by their weights; norm restored."""
    weights = torch.cat([weight for _, weight in avoids], dim=1)
    units = torch.stack([unit_rows(latent) for latent, _ in avoids], dim=1) * (weights > 0)[..., None]
    lean = row_sum(units * draft[:, None])
    parts = lean.clamp(min=0)
    if len(avoids) > 1:
        # Latents that resemble each other must not be taken out twice: project on their cone (non-negative least
        # squares by projected gradient). Starting from zero keeps it independent of the order of the pulls.
        gram = row_sum(units[:, :, None] * units[:, None])
        overlap = row_sum(gram.abs()).clamp(min=1)
        parts = torch.zeros_like(lean)
        for _ in range(_AVOID_ROUNDS):
            parts = (parts + (lean - row_sum(gram * parts[:, None])) / overlap).clamp(min=0)
    parts = parts * weights
    moved = draft
    for index in range(len(avoids)):
        moved = moved - parts[:, index, None] * units[:, index]
    return torch.where((parts > 0).any(dim=1, keepdim=True), with_norm(moved, row_norm(draft)), draft)


def _mean_of(latents: Floats, z: Tensor) -> Tensor:
    latents = as_floats(latents, "a set of examples")
    if latents.ndim not in (1, 2) or latents.shape[0] == 0 or latents.shape[-1] != z.shape[-1]:
        raise GuidanceError(f"examples are latents [n, {z.shape[-1]}] or [{z.shape[-1]}]; got {describe(latents)}")
    return latents.double() if latents.ndim == 1 else latents.double().mean(0)


def _draw(noise: Tensor | Generator, draft: Tensor) -> Tensor:
    if isinstance(noise, Generator):
        return torch.randn(draft.shape, generator=noise, device=noise.device).to(draft.device)
    noise = as_floats(noise, "noise")
    if noise.shape != draft.shape:
        raise GuidanceError(f"noise has the draft's shape {list(draft.shape)}; got {describe(noise)}")
    return noise


def _at_step(pull: Pull, draft: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """A pull's latent `[B, z]` and weight `[B, 1]` at a step, in the draft's dtype and on its device."""
    weight = pull.weights[..., step].to(draft).reshape(-1, 1).expand(len(draft), 1)
    return pull.latent.to(draft).expand_as(draft), weight


def _check_mix(draft: Tensor, pulls: Sequence[Pull], step: int, rescale: str | float, method: str) -> None:
    if draft.ndim != 2 or not draft.is_floating_point():
        raise GuidanceError(f"a draft is a float [B, z]; got {describe(draft)}; for one row use draft[None]")
    if method not in ("linear", "slerp"):
        raise GuidanceError(f"unknown method {method!r}; expected 'linear' or 'slerp'")
    if isinstance(rescale, str):
        if rescale not in ("mean", "none", "draft"):
            raise GuidanceError(f"unknown rescale {rescale!r}; expected 'mean', 'draft', 'none' or a norm")
    elif not is_number(rescale) or not (math.isfinite(rescale) and rescale > 0):
        raise GuidanceError(f"a norm to rescale to is finite and above 0; got {rescale!r}")
    if isinstance(step, bool) or not isinstance(step, int):
        raise GuidanceError(f"a step is an int, counted from 0; got {step!r}")
    batch, width = draft.shape
    for pull in pulls:
        if pull.latent.shape[-1] != width or (pull.latent.ndim == 2 and len(pull.latent) not in (1, batch)):
            raise GuidanceError(f"a pull's latent {describe(pull.latent)} does not fit a draft {describe(draft)}")
        if pull.weights.ndim == 2 and len(pull.weights) not in (1, batch):
            raise GuidanceError(f"a pull's weights {describe(pull.weights)} do not fit a draft {describe(draft)}")
        if not 0 <= step < pull.weights.shape[-1]:
            raise GuidanceError(f"step {step} is outside a schedule of {pull.weights.shape[-1]} steps, counted from 0")
