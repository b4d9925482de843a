"""How the weight of the KL term rises."""

import pytest

from steer.training.objectives.beta import beta_at
from steer.training.recipe import LatentRecipe, MiniHFRecipe


def test_beta_rises_linearly_between_its_two_shares() -> None:
    recipe = LatentRecipe.model_validate({"beta": 0.5, "beta_start": 0.2, "beta_full": 0.7, "train": {"steps": 20}})
    assert [round(beta_at(recipe, step), 6) for step in (0, 4, 9, 14, 20)] == [0.01, 0.01, 0.25, 0.5, 0.5]


def test_beta_rises_as_a_squared_sine() -> None:
    settings = {"layout": "minihf", "beta": 0.1, "beta_steps": 100, "train": {"steps": 9}, "router": {"steps": 9}}
    recipe = MiniHFRecipe.model_validate(settings)
    assert [round(beta_at(recipe, step), 6) for step in (0, 50, 100, 900)] == [0.0, 0.05, 0.1, 0.1]
    assert beta_at(recipe, 25) == pytest.approx(0.1 * 0.146447, rel=1e-4)
