"""A scenario file and saved trees for the tests of the commands."""

from pathlib import Path

import pytest
import yaml

from steer.search.tree_file import save_tree
from tests.steer.search.tree_kit import small_tree, wide_tree

GOALS = ("A boat.", "Cake!", "Rain.")
MENU = [
    {"strength": 0.0, "guidance_scale": 1.0, "temperature": None},
    {"strength": 0.5, "guidance_scale": 1.5, "temperature": 0.7},
]


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
