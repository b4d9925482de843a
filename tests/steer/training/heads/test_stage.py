"""The stages of heads: a model gets its head, and what is resumed, refused and passed over."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steer.errors import CorpusError, TrainingError
from steer.models.latent_model import LatentModel
from steer.training.heads import HEADS, shards
from steer.training.heads.stage import HeadStage, train_head
from steer.training.recipe import PriorRecipe, ReachRecipe
from tests.steer.data.kit import STORIES
from tests.steer.tiny import tiny_model

SEEN, UNSEEN = STORIES[:50], STORIES[50:]
RECIPES = {
    "reach": ReachRecipe(stories=40, steps=8, batch_size=32, width=8),
    "prior": PriorRecipe(stories=40, steps=6, batch_size=16, width=8, components=2),
}


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model(tiny_llama).save_pretrained(path)
    return path


@pytest.fixture(params=list(HEADS))
def kind(request: pytest.FixtureRequest) -> HeadStage:
    return HEADS[request.param]


def test_a_model_gets_its_head(kind: HeadStage, folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    (folder / "README.md").write_text("# My model\n", encoding="utf-8")
    recipe, stage = RECIPES[kind.name], tmp_path / "stage"
    out = train_head(kind, folder, recipe, SEEN, UNSEEN, stage, seed=3)
    loaded, before = LatentModel.from_pretrained(out), LatentModel.from_pretrained(folder)
    head = getattr(loaded, kind.name)
    assert head is not None and getattr(before, kind.name) is None
    assert loaded.latent_config.encoder_id == before.latent_config.encoder_id == head.config.encoder_id
    if kind.name == "reach":
        assert head.config.temperature != 1
    done = json.loads((stage / "done.json").read_text())
    assert done["stories"] == 40 and done["parameters"] == sum(p.numel() for p in head.parameters())
    assert done["figures"] == kind.measure(loaded, UNSEEN, 3)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# My model") and f"A {kind.title} was trained" in card
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    train_head(kind, folder, recipe, SEEN, UNSEEN, stage, seed=3)
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(TrainingError, match="seed was 3, now it is 4"):
        train_head(kind, folder, recipe, SEEN, UNSEEN, stage, seed=4)
    with pytest.raises(TrainingError, match="heads was"):
        train_head(kind, stage / "model", recipe, SEEN, UNSEEN, stage, seed=3)


def test_figures_have_these_names(folder: Path, tmp_path: Path) -> None:
    for name, recipe in RECIPES.items():
        train_head(HEADS[name], folder, recipe, SEEN, UNSEEN, tmp_path / name)
    reached, drafted = (json.loads((tmp_path / name / "done.json").read_text())["figures"] for name in RECIPES)
    assert 0 <= reached["reach"]["auc_other"] <= 1
    assert set(drafted["cosine"]) == {"mean", "drawn", "written", "nothing"}


def test_an_interrupted_stage_goes_on(
    kind: HeadStage, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PART", 10)
    calls = []

    def encode(*arguments: Any, **options: Any) -> Any:
        calls.append(options["first"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kind.read(*arguments, **options)

    watched, recipe = replace(kind, read=encode), RECIPES[kind.name]
    for _ in range(2):
        try:
            train_head(watched, folder, recipe, SEEN, UNSEEN, tmp_path / "one")
        except KeyboardInterrupt:
            continue
    assert calls == [0, 10, 20, 20, 30]
    train_head(kind, folder, recipe, SEEN, UNSEEN, tmp_path / "two")
    one, two = (getattr(LatentModel.from_pretrained(tmp_path / run / "model"), kind.name) for run in ("one", "two"))
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, two.state_dict()[name], msg=name)
    (tmp_path / "one" / "done.json").unlink()
    with pytest.raises(
        TrainingError, match=r"(?s)latents is made of something else: seed was 0, now it is 1; stories was"
    ):
        train_head(kind, folder, recipe, SEEN[:49], UNSEEN, tmp_path / "one", seed=1)


def test_no_stories(kind: HeadStage, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"no stories to train the {kind.title}"):
        train_head(kind, folder, RECIPES[kind.name], [], UNSEEN, tmp_path)
    with pytest.raises(CorpusError, match="no stories to evaluate"):
        kind.measure(LatentModel.from_pretrained(folder), [], 0)
