"""Weight schedules: how hard guidance pulls at each step.

A schedule is a float32 tensor `[n]` of weights in [0, 1], made by a plain function `name(n, *, ...)` and read by
`steer.latents.mixing.mix` at `weights[step]`. Weight 0 leaves the draft alone, weight 1 is the terminal itself.

| name | weights for k = 0 .. n-1 | arrives |
|---|---|---|
| constant | start | no |
| linear | from start to end | at end |
| linear_bigvae | start + step_size * (k + 1), at most 1 | no |
| cosine | from start to end, flat at both ends | at end |
| bridge | start + (end - start) * (k + 1) / n | at end |
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.text import is_number


def constant(n: int, *, start: float = 0.5) -> Tensor:
    """The same weight at every step: float32 `[n]`.

    Raises:
        GuidanceError: if `n` is below 1 or `start` is outside [0, 1].
    """
    _check(n, start=start)
    return _as_weights([start] * n)


def linear(n: int, *, start: float = 0.1, end: float = 0.9) -> Tensor:
    """Equal steps from `start` at the first step to `end` at the last (a single step has `end`): float32 `[n]`.

    Raises:
        GuidanceError: if `n` is below 1, or `start` or `end` is outside [0, 1].
    """
    _check(n, start=start, end=end)
    return _as_weights(start + (end - start) * t for t in _progress(n))


def linear_bigvae(n: int, *, start: float = 0.05, step_size: float = 0.1) -> Tensor:
    """BigVAE's guidance annealing: `start + step_size * k` for k = 1 .. n, float32 `[n]`.

    MiniHF counts from one. Its planner used a step size of 0.025, so that its five steps ended at a weight of 0.175;
    nothing there kept the weight below 1, here it stays at 1 once reached.

    Raises:
        GuidanceError: if `n` is below 1 or `start` or `step_size` is outside [0, 1].
    """
    _check(n, start=start, step_size=step_size)
    return _as_weights(min(start + step_size * (k + 1), 1.0) for k in range(n))


def cosine(n: int, *, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Half a cosine wave from `start` to `end`, flat at both ends (a single step has `end`): float32 `[n]`.

    Raises:
        GuidanceError: if `n` is below 1, or `start` or `end` is outside [0, 1].
    """
    _check(n, start=start, end=end)
    return _as_weights(start + (end - start) * (1 - math.cos(math.pi * t)) / 2 for t in _progress(n))


def bridge(n: int, *, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Mean of a Brownian bridge from the draft to the terminal: float32 `[n]`, arriving at `end` with the last step.

    The draft is the bridge's point at time 0, before the first step, so that step k is time `(k + 1) / n`.

    Raises:
        GuidanceError: if `n` is below 1, or `start` or `end` is outside [0, 1].
    """
    _check(n, start=start, end=end)
    return _as_weights(start + (end - start) * (k + 1) / n for k in range(n))


SCHEDULES: dict[str, Callable[..., Tensor]] = {
    "constant": constant,
    "linear": linear,
    "linear_bigvae": linear_bigvae,
    "cosine": cosine,
    "bridge": bridge,
}


def make_schedule(name: str, n: int, **options: float) -> Tensor:
    """Make the schedule of that name with `n` steps: float32 `[n]`.

    Args:
        name: one of `SCHEDULES`.
        n: number of steps.
        options: keyword arguments of that schedule, such as `start=` and `end=`.

    Raises:
        GuidanceError: if the name or an option is unknown, or a value is out of range.
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise GuidanceError(f"unknown schedule {name!r}; expected one of {', '.join(sorted(SCHEDULES))}")
    known = [p.name for p in inspect.signature(SCHEDULES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise GuidanceError(f"schedule {name!r} has no option {', '.join(unknown)}; it takes {', '.join(known)}")
    return SCHEDULES[name](n, **options)


@dataclass(frozen=True)
class ScheduleConfig:
    """A schedule by name, before its number of steps is known. `None` keeps that schedule's own default.

    Raises:
        GuidanceError: at construction, if the name is unknown or the schedule does not take what is set.
    """

    name: str = "bridge"
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        self.weights(1)

    def weights(self, n: int) -> Tensor:
        """The schedule with `n` steps: float32 `[n]`."""
        options = {"start": self.start, "end": self.end}
        return make_schedule(self.name, n, **{key: value for key, value in options.items() if value is not None})


def _progress(n: int) -> list[float]:
    """From 0 at the first step to 1 at the last; a single step is the last."""
    return [k / (n - 1) for k in range(n)] if n > 1 else [1.0]


def _as_weights(values: Iterable[float]) -> Tensor:
    """Round Python floats once, so that a schedule reaches its end exactly."""
    return torch.tensor(list(values), dtype=torch.float32)


def _check(n: int, **weights: float) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise GuidanceError(f"a schedule needs at least one step, as an int; got n={n!r}")
    for name, weight in weights.items():
        if not is_number(weight) or not 0 <= weight <= 1:
            raise GuidanceError(
                f"{name}={weight!r} is outside [0, 1]: 0 leaves the draft alone, 1 is the terminal; "
                "to move away from a latent use Pull(..., avoid=True)"
            )
