"""The prior stage: cuts, what is resumed, and a head that learns what there is to learn."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer.errors import CorpusError, TrainingError
from steer.evaluation.prior import prior_figures
from steer.heads.prior import PriorHead
from steer.models.latent_model import LatentModel
from steer.training.heads import prior as prior_stage
from steer.training.heads.prior import fit_prior, train_prior
from steer.training.heads.prior_data import Continuations, cut_row, encode_continuations, join_continuations
from steer.training.recipe import PriorRecipe
from tests.steer.tiny import SPAN, Z_DIM, tiny_model

RECIPE = PriorRecipe(stories=40, steps=6, batch_size=16, width=8, components=2)
STORIES = [
    f"The {'fox dog cat hen'.split()[i % 4]} Tom{'abcdefg'[i % 7]} ran. It sat {i}. A cow sang! Was it so? It was."
    for i in range(60)
]


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model(tiny_llama).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentModel:
    return LatentModel.from_pretrained(folder)


# What is read ---------------------------------------------------------------------------------------------------------


def test_a_story_is_cut_into_a_context_and_whole_spans() -> None:
    rng, ids = np.random.default_rng(0), np.arange(100)
    rows = [cut_row(ids, 10, rng, spans=4, longest=40, begin=500) for _ in range(300)]
    lengths = set()
    for row in rows:
        assert row is not None and row.spans.shape[1] == 10 and 1 <= len(row.spans) <= 4
        first = int(row.spans[0, 0])
        assert np.array_equal(row.spans.reshape(-1), np.arange(first, first + row.spans.size))
        assert len(row.spans) == min(4, (100 - first) // 10) and len(row.null) == len(row.spans)
        if first == 0:
            assert row.context.tolist() == [500]
        else:
            assert len(row.context) <= 40 and np.array_equal(row.context, np.arange(first - len(row.context), first))
            lengths.add(len(row.context))
    assert min(lengths) < 5 and max(lengths) > 35
    assert 0.15 < np.mean([null for row in rows if row for null in row.null]) < 0.35
    assert cut_row(ids[:19], 10, rng, spans=4, longest=40, begin=500) is None


def test_a_story_does_not_depend_on_those_before_it(model: LatentModel) -> None:
    together = encode_continuations(model, STORIES[:6], seed=1)
    alone = encode_continuations(model, STORIES[4:6], seed=1, first=4)
    rows = together["story"] >= 4
    assert torch.equal(together["story"][rows], alone["story"])
    for name in ("states", "latents"):
        torch.testing.assert_close(together[name][rows], alone[name], atol=1e-4, rtol=0)


def test_short_stories_give_nothing(model: LatentModel) -> None:
    found = encode_continuations(model, ["Hi. You."] * 3)
    assert found["states"].shape == (0, 32 + Z_DIM) and found["latents"].shape == (0, Z_DIM) and not len(found["story"])


# The head -------------------------------------------------------------------------------------------------------------


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


# The stage ------------------------------------------------------------------------------------------------------------


def test_a_model_gets_its_head(folder: Path, model: LatentModel, tmp_path: Path) -> None:
    out = train_prior(folder, RECIPE, STORIES[:50], STORIES[50:], tmp_path / "prior", seed=3)
    loaded = LatentModel.from_pretrained(out)
    assert isinstance(loaded.prior, PriorHead) and model.prior is None
    assert loaded.latent_config.encoder_id == model.latent_config.encoder_id == loaded.prior.config.encoder_id
    done = json.loads((tmp_path / "prior" / "done.json").read_text())
    assert set(done["figures"]["cosine"]) == {"mean", "drawn", "written", "nothing"} and done["stories"] == 40
    assert done["figures"] == prior_figures(loaded, STORIES[50:], seed=3)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    again = (RECIPE, STORIES[:50], STORIES[50:], tmp_path / "prior")
    train_prior(folder, *again, seed=3)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(TrainingError, match="seed was 3, is now 4"):
        train_prior(folder, *again, seed=4)
    with pytest.raises(TrainingError, match="heads was"):
        train_prior(tmp_path / "prior" / "model", *again, seed=3)


def test_an_interrupted_stage_goes_on(
    folder: Path, model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior_stage, "PART", 10)
    inner, calls = prior_stage.encode_continuations, []

    def encode(*arguments: Any, **options: Any) -> Any:
        calls.append(options["first"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(*arguments, **options)

    monkeypatch.setattr(prior_stage, "encode_continuations", encode)
    for _ in range(2):
        try:
            train_prior(folder, RECIPE, STORIES[:50], STORIES[50:], tmp_path / "one")
        except KeyboardInterrupt:
            continue
    assert calls == [0, 10, 20, 20, 30]
    train_prior(folder, RECIPE, STORIES[:50], STORIES[50:], tmp_path / "two")
    one, two = (LatentModel.from_pretrained(tmp_path / name / "model").prior for name in ("one", "two"))
    assert one is not None and two is not None
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, two.state_dict()[name], msg=name)
    with pytest.raises(TrainingError, match="begun with another seed and stories; train into a new folder"):
        (tmp_path / "one" / "done.json").unlink()
        train_prior(folder, RECIPE, STORIES[:49], STORIES[50:], tmp_path / "one", seed=1)


def test_no_stories(folder: Path, model: LatentModel, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no stories to train"):
        train_prior(folder, RECIPE, [], STORIES, tmp_path)
    with pytest.raises(CorpusError, match="no stories to evaluate"):
        prior_figures(model, [])
    assert SPAN == 8
    model.prior = PriorHead(RECIPE.config("e", 32 + Z_DIM, Z_DIM, 3)).eval()
    try:
        with pytest.raises(CorpusError, match="no story has two spans of 8 tokens"):
            prior_figures(model, ["Hi. You."])
    finally:
        model.prior = None
