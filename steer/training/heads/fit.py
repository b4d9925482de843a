"""How a small head is fitted: the one loop of all heads."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from steer.errors import TrainingError

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Descent:
    """AdamW, and how its rate goes.

    Attributes:
        steps: in all.
        learning_rate, weight_decay: of AdamW.
        warmup: steps in which the rate rises; 0 for none.
        decay: share of the steps, at the end, in which the rate falls to zero.
        max_grad_norm: gradients are clipped to it.
        every: steps from one record to the next.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    warmup: int = 0
    decay: float = 0.0
    max_grad_norm: float = float("inf")
    every: int = 100

    def factor(self, step: int) -> float:
        """What the rate is multiplied with at a step, counted from 0."""
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        fall = (self.steps - step) / (self.decay * self.steps) if self.decay else 1.0
        return max(0.0, min(1.0, rise, fall))


def fit(
    head: nn.Module,
    loss: Callable[[Batch], Tensor],
    batches: Iterable[Batch],
    descent: Descent,
    *,
    check: Callable[[], float] | None = None,
    curve: Path | None = None,
) -> dict[str, float]:
    """Train a head, which is left frozen and in evaluation mode.

    Args:
        head: in training mode.
        loss: of a batch, a scalar.
        batches: at least as many as there are steps.
        descent: steps and rates.
        check: at each record the loss on held-out rows, taken in evaluation mode without gradients. The head keeps the
            weights with the least; without it, the last ones.
        curve: file to which records are appended as JSON lines.

    Returns:
        `loss`, the mean since the last record but one, and with `check` the least `held_out_loss`.

    Raises:
        TrainingError: the loss became NaN or infinite.
    """
    optimizer = torch.optim.AdamW(head.parameters(), lr=descent.learning_rate, weight_decay=descent.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, descent.factor)
    best: tuple[float, dict[str, Tensor]] | None = None
    recent: list[float] = []
    record: dict[str, float] = {}
    for step, batch in zip(range(descent.steps), batches, strict=False):
        value = loss(batch)
        recent.append(float(value.detach()))
        if not np.isfinite(recent[-1]):
            raise TrainingError(f"the head's loss became {recent[-1]} at step {step}; lower its learning_rate")
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(head.parameters(), descent.max_grad_norm)
        optimizer.step()
        schedule.step()
        if (step + 1) % descent.every and step + 1 < descent.steps:
            continue
        record = {"loss": float(np.mean(recent))}
        recent.clear()
        if check is not None:
            head.eval()
            with torch.no_grad():
                record["held_out_loss"] = check()
            head.train()
            if best is None or record["held_out_loss"] < best[0]:
                best = record["held_out_loss"], {name: t.clone() for name, t in head.state_dict().items()}
        if curve is not None:
            rounded = {name: round(number, 6) for name, number in record.items()}
            with curve.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step + 1, **rounded}) + "\n")
    if best is not None:
        head.load_state_dict(best[1])
        record["held_out_loss"] = best[0]
    head.eval().requires_grad_(False)
    return record
