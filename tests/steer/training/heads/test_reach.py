"""The reach head's training: a temperature, and a head that learns what there is to learn."""

import pytest
import torch

from steer.evaluation.reach import measure
from steer.training.heads.reach import fit_reach, fit_temperature
from steer.training.recipe import ReachRecipe
from tests.steer.data.kit import walks


def test_a_temperature_undoes_a_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 4, generator=generator) * 2
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)


def test_a_head_learns_who_and_how_far() -> None:
    recipe = ReachRecipe(steps=400, batch_size=256, width=32, dropout=0.0, noise=0.05)
    head, losses = fit_reach(walks(150), recipe, recipe.config("e", 5))
    assert losses["held_out_loss"] < 1.5 and head.config.tail == pytest.approx(10.4, abs=0.5)
    found = measure(head, walks(40, seed=1))
    assert found["reach"]["auc_other"] > 0.97 and found["reach"]["order"] > 0.97
    assert found["reach"]["auc_earlier"] > 0.97 > found["cosine"]["auc_earlier"]
    assert found["calibration"]["ece"] < 0.1
    assert "auc_rival" not in found["reach"]
