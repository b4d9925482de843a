"""The unit of guidance: a latent with a weight for each step, and the way in for what Python users have at hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.text import is_number

Floats = Tensor | np.ndarray | Sequence[Any] | float  # what `as_floats` takes

# Steps for which a number given as weights holds. The schedule is a view of that one number, so length costs nothing.
ENDLESS = 4096


@final
@dataclass(frozen=True, eq=False, init=False, repr=False)
class Pull:
    """A latent with a weight schedule: the unit of guidance.

    Attributes:
        latent: float `[z]`, or `[B, z]` for one latent per row. A list or a NumPy array is taken as float32.
        weights: schedule in [0, 1], `[n]`, or `[B, n]` for one schedule per row (so that search may steer each
            candidate by another amount). A list or a NumPy array is taken as float32; a number is a constant schedule
            of any length.
        avoid: repel from the latent instead of pulling towards it.

    Raises:
        GuidanceError: at construction, for a text or another wrong type, wrong shapes, values that are not finite, or
            weights outside [0, 1].
    """

    latent: Tensor
    weights: Tensor
    avoid: bool

    def __init__(self, latent: Floats, weights: Floats, avoid: bool = False) -> None:
        latent, weights = as_floats(latent, "a pull's latent"), as_floats(weights, "a pull's weights")
        if latent.ndim not in (1, 2) or 0 in latent.shape or not latent.is_floating_point():
            raise GuidanceError(f"a pull's latent is a float [z] or [B, z]; got {describe(latent)}")
        if not bool(torch.isfinite(latent).all()):
            raise GuidanceError("a pull's latent holds NaN or infinity; check the encoder that made it")
        if weights.ndim > 2 or 0 in weights.shape or not weights.is_floating_point():
            raise GuidanceError(
                f"a pull's weights are a float [n] or [B, n], or a number; got {describe(weights)}; "
                "make_schedule(name, n) makes them"
            )
        if not bool(((weights >= 0) & (weights <= 1)).all()):
            raise GuidanceError(
                f"a pull's weights lie in [0, 1]; got {weights.min():g} to {weights.max():g}; "
                "to move away from a latent use avoid=True"
            )
        object.__setattr__(self, "latent", latent)
        object.__setattr__(self, "weights", weights if weights.ndim else weights.expand(ENDLESS))
        object.__setattr__(self, "avoid", avoid)

    def __repr__(self) -> str:
        norm = self.latent.float().norm(dim=-1).mean()
        low, high = self.weights.min(), self.weights.max()
        weights = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
        return (
            f"Pull(latent {list(self.latent.shape)} of norm {norm:.2f}, weights {list(self.weights.shape)} of "
            f"{weights}{', avoid' if self.avoid else ''})"
        )


def as_floats(value: Floats, what: str) -> Tensor:
    """What a user has at hand as a tensor: tensors as they are, numbers, lists and NumPy arrays as float32.

    Args:
        value: a tensor, a number, a NumPy array, or lists of numbers or of tensors of one shape.
        what: to name it by in messages, such as "a pull's latent".

    Raises:
        GuidanceError: a text, None, a ragged list, or whatever else holds no numbers.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, str) or (isinstance(value, list | tuple) and any(isinstance(item, str) for item in value)):
        raise GuidanceError(
            f"{what} is the text {value!r:.60}; expected numbers; encode texts first: model.encode(...)"
        )
    try:
        if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
            value = torch.stack([torch.as_tensor(item) for item in value]).detach().cpu().numpy()
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError
        return torch.from_numpy(array.astype(np.float32))
    except (TypeError, ValueError, RuntimeError):
        raise GuidanceError(
            f"{what} is {value!r:.60} of {type(value).__name__}; expected a tensor, a NumPy array or a list of "
            "numbers, all rows of one length"
        ) from None


def as_pulls(pulls: Sequence[Pull] | Pull) -> tuple[Pull, ...]:
    """The pulls that were given, one or several.

    Raises:
        GuidanceError: something among them is no `Pull`.
    """
    if isinstance(pulls, Pull):
        return (pulls,)
    if not isinstance(pulls, Sequence) or (wrong := [p for p in pulls if not isinstance(p, Pull)]):
        what = pulls if not isinstance(pulls, Sequence) else wrong[0]
        raise GuidanceError(
            f"pulls holds {what!r:.60} of {type(what).__name__}; expected Pull(latent, weights), or a list of them"
        )
    return tuple(pulls)


def arrived(pulls: Sequence[Pull], step: int) -> Tensor | None:
    """The latent, float32, of the only pull that is at work, if it has arrived (weight 1 in all rows).

    A mix with it would be that latent whatever the draft, so no draft is needed.
    """
    active = [pull for pull in pulls if bool((pull.weights[..., step] > 0).any())]
    if len(active) == 1 and not active[0].avoid and bool((active[0].weights[..., step] >= 1).all()):
        return active[0].latent.float()
    return None


def describe(x: Tensor) -> str:
    """Shape and dtype of a tensor, for messages."""
    return f"{list(x.shape)} of {str(x.dtype).removeprefix('torch.')}"


def per_row(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, `[B]` or `[B, 1]` as something that broadcasts over the last axis of `like`."""
    if not isinstance(value, Tensor) and not is_number(value):
        raise GuidanceError(f"expected a number, or one per row; got {value!r:.80} of {type(value).__name__}")
    rows = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if rows.ndim and rows.ndim < like.ndim:
        rows = rows[..., None]
    if rows.ndim and rows.shape not in (like.shape[:-1] + (1,), (1,) * like.ndim):
        raise GuidanceError(f"expected one value, or one per row of {describe(like)}; got {list(rows.shape)}")
    return rows
