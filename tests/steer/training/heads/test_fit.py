"""The loop of the heads: rates, records, the best weights, and a loss that is lost."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from steer.errors import TrainingError
from steer.training.heads.fit import Descent, fit


def test_rates_rise_and_fall() -> None:
    plain = Descent(10, 1.0, 0.0)
    assert {plain.factor(step) for step in range(11)} == {1.0}
    shaped = Descent(10, 1.0, 0.0, warmup=4, decay=0.5)
    assert [shaped.factor(step) for step in range(11)] == [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0]


def test_the_best_weights_are_kept_and_records_written(tmp_path: Path) -> None:
    head = nn.Linear(1, 1, bias=False)
    head.weight.data.fill_(2.0)
    seen: list[float] = []

    def loss(batch: Tensor) -> Tensor:
        return head(batch).mean()  # falls without end, past what is best

    def check() -> float:
        assert not head.training and not torch.is_grad_enabled()
        seen.append(abs(float(head.weight)))
        return seen[-1]

    curve = tmp_path / "curve.jsonl"
    found = fit(
        head, loss, itertools.repeat(torch.ones(1, 1)), Descent(39, 0.1, 0.0, every=10), check=check, curve=curve
    )
    assert abs(float(head.weight)) == found["held_out_loss"] == min(seen) < seen[-1]
    assert not head.training and not head.weight.requires_grad
    records = [json.loads(line) for line in curve.read_text().splitlines()]
    assert [record["step"] for record in records] == [10, 20, 30, 39]
    assert records[-1]["loss"] == pytest.approx(found["loss"], abs=1e-6)


def test_a_loss_that_is_lost_is_named() -> None:
    head = nn.Linear(1, 1)
    with pytest.raises(TrainingError, match="loss became nan at step 0; lower its learning_rate"):
        fit(head, lambda batch: head(batch).mean() * float("nan"), [torch.ones(1, 1)], Descent(1, 0.1, 0.0))
