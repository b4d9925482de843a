"""`steer eval`: what is measured, and what is shown of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from steer.errors import CorpusError
from tests.agents.cli.kit import SPAN, document, error_line, fake_module, steer

FIGURES = {
    "latents": {"nll_own": 2.5, "active_units": 12},
    "endings": {
        "pairs": 7,
        "spans": 6,
        "temperature": 0.7,
        "arms": {
            "annealed": {"nearest": (0.5, 0.25, 0.75), "nearest_five": (1.0, 1.0, 1.0), "base_nll": 1.25},
            "unguided": {"nearest": (float("nan"), 0, 1), "nearest_five": (0.5, 0.0, 1.0), "base_nll": 1.0},
        },
    },
}


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    return saved


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the evaluation; the list holds what it was called with."""
    calls: list[Any] = []

    def evaluate(model: Any, stories: list[str], *, pairs: int, seed: int, progress: Any) -> dict[str, Any]:
        progress("latents", 1, 2)
        calls.append((model.span_tokens, stories, pairs, seed))
        return FIGURES

    fake_module(monkeypatch, "steer.evaluation.evaluate", evaluate=evaluate)
    return calls


def test_eval_hands_the_stories_on(folder: Path, tmp_path: Path, measured: list[Any]) -> None:
    stories = tmp_path / "stories.txt"
    stories.write_text("One.\n<|endoftext|>\nTwo.\n", encoding="utf-8")
    answer = document(steer("eval", folder, "--data", stories, "--pairs", 7, "--seed", 3, "--json"))
    assert measured == [(SPAN, ["One.", "Two."], 7, 3)]
    assert answer["latents"] == {"nll_own": 2.5, "active_units": 12}
    assert answer["endings"]["arms"]["unguided"]["nearest"] == [None, 0, 1]
    shown = steer("eval", folder, "--data", stories).stdout.splitlines()
    told = dict(re.split(r"\s{2,}", line.strip()) for line in shown if "  " in line.strip())
    assert told["NLL in context: own / null / wrong latent"] == "2.50 / - / -"
    assert told["annealed: nearest to its goal"] == "50% (25% to 75%)"
    assert told["unguided: nearest to its goal"] == "-"
    assert told["Endings"] == "7 pairs, 6 spans, temperature 0.7"


def test_eval_without_data_shows_the_figures_that_came_with_the_model(
    folder: Path, tmp_path: Path, measured: list[Any]
) -> None:
    assert "give --data FILE" in error_line(steer("eval", folder))
    import shutil

    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    (whole / "eval.json").write_text('{"latents": {"kl": 90.5}}', encoding="utf-8")
    assert document(steer("eval", whole, "--json")) == {"latents": {"kl": 90.5}}
    assert "KL divergence, nats per span  90" in steer("eval", whole).stdout
    assert measured == []


def test_eval_bad_data(folder: Path, tmp_path: Path, measured: list[Any]) -> None:
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    assert "no such file or folder" in error_line(steer("eval", folder, "--data", tmp_path / "none.txt"))
    assert "holds no stories" in error_line(steer("eval", folder, "--data", tmp_path / "empty.txt"))
    assert measured == []


def test_eval_errors_of_the_library_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*arguments: Any, **options: Any) -> dict[str, Any]:
        raise CorpusError("only 3 stories are long enough")

    fake_module(monkeypatch, "steer.evaluation.evaluate", evaluate=evaluate)
    (tmp_path / "stories.txt").write_text("One.\n", encoding="utf-8")
    assert "only 3 stories" in error_line(steer("eval", folder, "--data", tmp_path / "stories.txt"))
