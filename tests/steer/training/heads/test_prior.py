"""The draft head's training: a head that learns what there is to learn."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer.errors import CorpusError
from steer.evaluation.continuations import Continuations, join_continuations
from steer.evaluation.prior import prior_figures
from steer.heads.prior import PriorHead
from steer.training.heads.prior import fit_prior
from steer.training.recipe import PriorRecipe
from tests.steer.tiny import SPAN, Z_DIM, tiny_model

RECIPE = PriorRecipe(stories=40, steps=6, batch_size=16, width=8, components=2)


def made(count: int, seed: int = 0) -> Continuations:
    """A coin, three numbers that follow from the state but for noise, one that is noise, and one that is not there."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(count, 5))
    latents = np.zeros((count, 6))
    coin = np.sign(rng.random(count) - 0.5)
    latents[:, :4] = 2 * states[:, :4] + 0.3 * rng.normal(size=(count, 4))
    latents[:, 0] = 3 * coin + 0.3 * rng.normal(size=count)
    latents[:, 4] = rng.normal(size=count)
    latents[:, 5] = 1e-4 * rng.normal(size=count)
    return Continuations(torch.from_numpy(states).float(), torch.from_numpy(latents).float(), np.arange(count) // 4)


def test_a_head_learns_means_spreads_and_both_sides_of_a_coin() -> None:
    recipe = PriorRecipe(steps=800, batch_size=256, width=64, components=2, dropout=0.0, noise=0.0)
    head, losses = fit_prior(made(4000), recipe, "e")
    assert head.config.axes == 5 and not head.training
    unseen = made(1000, seed=1)
    with torch.no_grad():
        nll = float(head.nll(unseen.states, head.standardize(unseen.latents)).mean())
    # Entropies of the standardised numbers: three of spread 0.3 in 2.02, the coin's, and pure noise.
    normal = 0.5 * math.log(2 * math.pi * math.e)
    best = (3 * (normal + math.log(0.3 / 2.022)) + normal + math.log(0.3 / 3.015) + math.log(2) + normal) / 5
    assert best <= nll + 0.02 and nll < best + 0.15
    assert losses["held_out_loss"] == pytest.approx(nll, abs=0.1)
    drawn = head.sample(unseen.states, _noise(1000), 0, spread=1)
    assert 0.4 < float((drawn[:, 0] > 0).float().mean()) < 0.6 and float((drawn[:, 0].abs() > 2).float().mean()) > 0.9
    assert float((drawn[:, 1] - 2 * unseen.states[:, 1]).std()) == pytest.approx(0.3, abs=0.15)


def _noise(count: int) -> Any:
    from steer.noise import RowNoise

    return RowNoise(tuple(range(count)))


def test_too_few_stories() -> None:
    with pytest.raises(CorpusError, match="too few stories of two spans"):
        fit_prior(join_continuations([{**_empty()}]), RECIPE, "e")


def _empty() -> dict[str, torch.Tensor]:
    return {"states": torch.zeros(0, 5), "latents": torch.zeros(0, 6), "story": torch.zeros(0, dtype=torch.long)}


def test_figures_of_stories_that_are_too_short(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama)
    model.prior = PriorHead(RECIPE.config("e", 32 + Z_DIM, Z_DIM, 3)).eval()
    with pytest.raises(CorpusError, match=f"no story has two spans of {SPAN} tokens"):
        prior_figures(model, ["Hi. You."])
