"""`steer run` and `resume` on a tiny model: what is shown, what is kept, how a stop ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.log.events import TurnEvent
from tests.agents.cli.conftest import write_scenario
from tests.agents.cli.kit import document, error_line, steer


def log(run: Path, name: str = "events.jsonl") -> bytes:
    return (run / name).read_bytes()


def test_run_prints_the_folder_alone(play: Path, tmp_path: Path) -> None:
    result = steer("run", play, "--out", tmp_path / "run")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'run'}\n")
    assert "A boat." in result.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"events.jsonl", "unguided.jsonl", "transcript.md", "progress.png", "manifest.json"} <= names
    assert "A boat." not in steer("--quiet", "run", play, "--out", tmp_path / "again", "--turns", 1).stderr


@pytest.mark.usefixtures("undrawn")
def test_run_as_json(play: Path, tmp_path: Path) -> None:
    answer = document(steer("run", play, "--out", tmp_path / "run", "--json", "--turns", 1, "--no-baseline"))
    assert answer["run"] == str(tmp_path / "run")
    assert (answer["summary"]["turns"], answer["summary"]["status"]) == (1, "finished")
    assert [goal["text"] for goal in answer["summary"]["goals"]] == ["A boat.", "Rain.", "Cake!"]
    assert not (tmp_path / "run" / "unguided.jsonl").exists()


@pytest.mark.usefixtures("undrawn")
def test_the_seed_of_the_command_line_wins(play: Path, tmp_path: Path) -> None:
    for name, options in (("a", []), ("b", ["--seed", 0]), ("c", ["--seed", 1])):
        assert steer("run", play, "--out", tmp_path / name, "--no-baseline", *options).exit_code == 0
    assert log(tmp_path / "a") == log(tmp_path / "b") != log(tmp_path / "c")


@pytest.mark.usefixtures("undrawn")
def test_runs_are_numbered(play: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert steer("run", play, "--turns", 1, "--no-baseline").stdout == f"runs/play-{number}\n"


@pytest.mark.usefixtures("undrawn")
def test_a_stopped_run_is_resumed_to_the_same_bytes(
    play: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    """Ctrl-C while a turn is reported; the run knows its model by itself, also one from the command line."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    other = write_scenario(tmp_path / "other.yaml", tmp_path / "no such model")
    assert steer("run", play, "--out", whole).exit_code == 0

    from agents.simulation import simulation

    real = simulation.run_scenario

    def interrupted(*args: Any, on_event: Callable[[Any, str], None], **options: Any) -> Any:
        def stop(event: Any, arm: str) -> None:
            on_event(event, arm)
            if isinstance(event, TurnEvent):
                raise KeyboardInterrupt

        return real(*args, on_event=stop, **options)

    monkeypatch.setattr(simulation, "run_scenario", interrupted)
    result = steer("run", other, "--model", saved, "--out", stopped)
    assert result.exit_code == 130
    assert result.stderr.endswith(f"stopped; nothing is lost: steer resume {stopped}\ninterrupted\n")
    assert not (stopped / "transcript.md").exists()

    assert steer("resume", stopped).stdout == f"{stopped}\n"
    assert log(stopped) == log(whole)
    assert log(stopped, "unguided.jsonl") == log(whole, "unguided.jsonl")
    assert document(steer("resume", stopped, "--json"))["summary"]["status"] == "unchanged"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": 0}, ": turns: "),
        ({"speed": 3}, ": speed: unknown key"),
        ({"opening": "  "}, "opening"),
        ({"model": "nothing"}, "no model folder at 'nothing'"),
        ({"characters": [{"id": "a", "name": "A", "goals": [{"id": "g", "text": "x" * 50}]}]}, "51 tokens"),
    ],
)
def test_scenarios_that_cannot_be_played(saved: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write_scenario(tmp_path / "play.yaml", saved, **changes)
    assert message in error_line(steer("run", path, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_places_that_hold_no_run_or_hold_one(play: Path, tmp_path: Path) -> None:
    assert "packaged scenarios: demo" in error_line(steer("run", "nothing"))
    assert "holds no run" in error_line(steer("resume", tmp_path))
    assert "holds no run" in error_line(steer("audit", tmp_path))
    assert "not empty" in error_line(steer("run", play, "--out", tmp_path))
    assert "give a folder" in error_line(steer("run", play, "--out", play))
