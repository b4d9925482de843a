"""Waypoints as pulls: guidance that goes by way of other latents before it arrives at its terminal.

The terminal keeps its schedule. The spans are shared out evenly among the waypoints and the terminal, in order; in its
share a waypoint takes a part of what the terminal leaves of the draft. So the first spans, where the terminal hardly
pulls, are written towards the first waypoint, and the last ones as without any.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.latents.pull import Pull


def stage_of(spans: int, waypoints: int) -> list[int]:
    """For each of so many spans, the index of the waypoint that it is written towards; `waypoints` is the terminal.

    Raises:
        GuidanceError: `spans` is below 1 or `waypoints` is negative.
    """
    if spans < 1 or waypoints < 0:
        raise GuidanceError(f"{spans} spans cannot be shared out among {waypoints} waypoints and a terminal")
    return [(2 * i + 1) * (waypoints + 1) // (2 * spans) for i in range(spans)]


def waypoint_pulls(
    waypoints: Sequence[Tensor], weights: Tensor, *, strength: float = 0.5, step: int = 0, steps: int | None = None
) -> list[Pull]:
    """Pulls towards the waypoints of each row, beside a terminal's.

    Args:
        waypoints: for each row float `[m, z]`, in order; m may differ from row to row, and be 0.
        weights: float `[n]`, the terminal's weights in the spans to be written.
        strength: share of what the terminal leaves of the draft, in [0, 1].
        step: spans of the way that are behind; the n spans are those from `step` on.
        steps: spans of the whole way; by default `step + n`.

    Returns:
        Pulls with latents `[B, z]` and weights `[B, n]`, one for the first waypoint of each row, one for the second,
        and so on; those without weight are left out.

    Raises:
        GuidanceError: shapes do not fit, or a number is out of range.
    """
    n = len(weights)
    steps = step + n if steps is None else steps
    if not 0 <= strength <= 1:
        raise GuidanceError(f"strength is {strength!r}; expected a share between 0 and 1")
    if step < 0 or step + n > steps:
        raise GuidanceError(f"spans {step} to {step + n - 1} are not among the {steps} of the way")
    if any(rows.dim() != 2 for rows in waypoints):
        raise GuidanceError("the waypoints of a row are a float [m, z]; got another shape")
    left = strength * (1 - weights.float())
    pulls = []
    for number in range(max((len(rows) for rows in waypoints), default=0)):
        # Where a row has no such waypoint, any latent does: its weight is 0.
        latents = torch.stack(
            [rows[min(number, len(rows) - 1)] if len(rows) else _other(waypoints) for rows in waypoints]
        )
        active = [
            [float(len(rows) > number and stage == number) for stage in stage_of(steps, len(rows))[step : step + n]]
            for rows in waypoints
        ]
        pull = Pull(latents.float(), torch.tensor(active) * left)
        if bool((pull.weights > 0).any()):
            pulls.append(pull)
    return pulls


def _other(waypoints: Sequence[Tensor]) -> Tensor:
    return next(rows[0] for rows in waypoints if len(rows))
