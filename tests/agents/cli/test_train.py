"""`steer train`: what the stages are handed, and what is said when they stop."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from agents.cli._app import load_command
from steer.training.pipeline import STAGES
from tests.agents.cli.kit import document, error_line, fake_module, steer


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    return saved


@pytest.mark.parametrize(
    ("stage", "stages"),
    [("base", ("base",)), ("autoencoder", STAGES[1:]), ("all", STAGES)],
)
def test_train_runs_the_stages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, stages: tuple[str, ...]
) -> None:
    calls: list[Any] = []

    def run_recipe(*arguments: Any, **options: Any) -> Path:
        calls.append((arguments, options))
        return tmp_path / "model"

    fake_module(monkeypatch, "steer.training.pipeline", run_recipe=run_recipe)
    options = ("--data-root", tmp_path, "--out", tmp_path / "out", "--report-to", "tensorboard")
    result = steer("train", stage, "recipe.yaml", *options)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'model'}\n")
    arguments = (Path("recipe.yaml"), tmp_path / "out", tmp_path)
    assert calls == [(arguments, {"stages": stages, "report_to": "tensorboard"})]


def test_train_tells_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_recipe(*arguments: Any, **options: Any) -> Path:
        raise KeyboardInterrupt

    fake_module(monkeypatch, "steer.training.pipeline", run_recipe=run_recipe)
    result = steer("train", "all", "recipe.yaml", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "stopped before a checkpoint" in result.stderr
    for stage, number in (("base", 40), ("autoencoder", 20), ("smoke-run/base", 60)):
        (tmp_path / "out" / stage / "checkpoints" / f"checkpoint-{number}").mkdir(parents=True)
    (tmp_path / "out" / "autoencoder" / "done.json").touch()  # its checkpoints are of no more use
    result = steer("train", "all", "recipe.yaml", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert result.stderr.splitlines()[0].endswith("base/checkpoints/checkpoint-40")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    message = error_line(steer("train", "base", tmp_path / "none.yaml", "--data-root", tmp_path, "--out", tmp_path))
    assert "cannot read recipe" in message


def test_parts_of_train_have_examples_that_parse() -> None:
    group = load_command("train")
    assert set(group.commands) == {"all", "base", "autoencoder", "reach", "prior", "preference"}
    for name, command in group.commands.items():
        words = shlex.split(command.epilog.removeprefix("Example: "))
        assert words[:3] == ["steer", "train", name]
        command.make_context(name, words[3:], resilient_parsing=False)


def test_train_reach_gives_a_model_its_head(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.evaluation.evaluate.judge_folder", lambda: None)
    monkeypatch.setattr("steer.evaluation.judge.judge_folder", lambda: None)
    data = tmp_path / "stories.txt"
    stories = [f"The fox {i} saw a hen. It ran home! Was it glad? A hen sat. It was fun. The end." for i in range(150)]
    data.write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    options = ("--corpus", data, "--stories", 40, "--steps", 3)
    result = steer("train", "reach", "--model", folder, *options, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out' / 'model'}\n"), result.stderr
    assert "auc_other" in result.stderr
    found = document(steer("eval", tmp_path / "out" / "model", "--data", data, "--pairs", 2, "--json"))
    assert found["reach"]["calibration"]["spans"] == 6 and found["quality"]["similarity"] == "encoder"
    message = error_line(steer("train", "reach", "--corpus", tmp_path / "none.txt", "--out", tmp_path / "x"))
    assert "none.txt: no such file" in message


def test_train_preference_writes_a_head(folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"chosen": f"zzz {i}", "rejected": f"aaa {i}", "context": f"{i}"}) for i in range(30)]
    pairs.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "taste.safetensors"
    command = ("train", "preference", pairs, "--model", folder, "--out", out, "--width", 0, "--steps", 30)
    result = steer(*command)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.stderr
    assert "held-out pairs" in result.stderr
    assert "exists; choose another name, or pass --overwrite" in error_line(steer(*command))
    assert document(steer(*command, "--overwrite", "--json"))["pairs"] == 30
    pairs.write_text(lines[0] + "\n{}", encoding="utf-8")
    assert "pairs.jsonl line 2: expected an object" in error_line(steer(*command, "--overwrite"))
