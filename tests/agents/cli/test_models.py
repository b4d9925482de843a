"""What a command says of a --model that is none, but lies near one or could become one."""

import json
import shutil
from pathlib import Path

import pytest

from tests.agents.cli.kit import error_line, steer


def test_the_folder_of_a_run_names_its_package(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(saved, tmp_path / "runs" / "x" / "package" / "tiny")
    monkeypatch.chdir(tmp_path)
    for name in ("runs/x", "runs/x/package"):
        line = error_line(steer("encode", "A", "-m", name))
        assert line.endswith("it is no steer model; did you mean runs/x/package/tiny?")


def test_a_plain_base_points_to_the_command_that_makes_a_model_of_it(tiny_llama: Path) -> None:
    line = error_line(steer("encode", "A", "-m", tiny_llama))
    assert f"`steer train autoencoder --base {tiny_llama} --data FILE --out RUN`" in line


def test_a_base_that_has_moved_is_told_in_one_line(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    settings = json.loads((folder / "steer_config.json").read_text(encoding="utf-8"))
    settings["base"]["name"] = str(tmp_path / "qwen")
    (folder / "steer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    line = error_line(steer("encode", "A", "-m", folder))
    assert f"the base of the model in {folder} is missing: expected at {tmp_path / 'qwen'}, no such folder" in line
