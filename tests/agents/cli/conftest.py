"""A scenario file and saved trees for the tests of the commands, and one loaded model for all that need no other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from steer.models.config import LatentConfig
from steer.models.latent_model import LatentModel
from steer.search.tree_file import save_tree
from tests.steer.search.tree_kit import small_tree, wide_tree

GOALS = ("A boat.", "Cake!", "Rain.")
MENU = [
    {"strength": 0.0, "guidance_scale": 1.0, "temperature": None},
    {"strength": 0.5, "guidance_scale": 1.5, "temperature": 0.7},
]


@pytest.fixture(scope="session")
def loaded_once() -> dict[tuple[Any, ...], LatentModel]:
    """The models of `saved` that commands have loaded, by options."""
    return {}


@pytest.fixture(autouse=True)
def load_once(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    loaded_once: dict[tuple[Any, ...], LatentModel],
) -> None:
    """Let all commands share one model of the folder `saved`: loading it takes as long as all the rest of a command.

    Models of other folders are loaded anew, and so is this one by what is set up before a test, and in other processes.
    """
    if "saved" not in request.fixturenames:
        return
    saved: Path = request.getfixturevalue("saved")
    load = LatentModel.from_pretrained

    def once(folder: str | Path, **options: Any) -> LatentModel:
        if Path(folder) != saved:
            return load(folder, **options)
        key = tuple(sorted(options.items()))
        if key not in loaded_once:
            loaded_once[key] = load(folder, **options)
        model = loaded_once[key]
        # A command that trains a head, or packages, gives it to the model; the folder has none.
        model.reach = model.prior = None
        model.latent_config = LatentConfig.load(saved)
        return model

    monkeypatch.setattr(LatentModel, "from_pretrained", once)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without their figures, which take longer to draw than a tiny model to play."""
    monkeypatch.setattr("agents.cli._runs.draw", lambda say, folder: folder / "progress.png")


@pytest.fixture
def play(saved: Path, tmp_path: Path) -> Path:
    """A scenario file of two turns."""
    return write_scenario(tmp_path / "play.yaml", saved)


def write_scenario(path: Path, model_path: Path, **changes: object) -> Path:
    boat, cake, rain = GOALS
    ann = [{"id": "sea", "text": boat}, {"id": "wet", "kind": "avoid", "text": rain}]
    data = {
        "id": "tiny",
        "title": "Tiny [b]",
        "model": str(model_path),
        "opening": "The sun was up.",
        "turns": 2,
        "spans_per_turn": 1,
        "characters": [
            {"id": "ann", "name": "Ann", "goals": ann},
            {"id": "bob", "name": "Bob", "goals": [{"id": "eat", "text": cake}]},
        ],
    }
    path.write_text(yaml.safe_dump(data | changes), encoding="utf-8")
    return path


@pytest.fixture
def run(tiny_llama: Path, tmp_path: Path) -> Path:
    """A folder with two trees, the first in the tokens of a model that is there."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    record = {
        "model": str(tiny_llama),
        "policy": "mcts",
        "menu": MENU,
        "status": ["finished", "out_of_tokens"],
        "terminals": ["The wolf slept.", "All was well."],
    }
    tree = small_tree(lambda text: tokenizer(text.decode("ascii", "replace").replace("\ufffd", "?"))["input_ids"])
    save_tree(tree, tmp_path / "run" / "search" / "a.safetensors", record)
    save_tree(wide_tree(6, 3), tmp_path / "run" / "search" / "b.safetensors", {"model": str(tiny_llama)})
    return tmp_path / "run"


@pytest.fixture
def tree(run: Path) -> Path:
    return run / "search" / "a.safetensors"
