"""`steer demo`, `run`, `resume` and `audit` on a tiny model: what is shown, what is kept, how a stop ends."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from agents.cli._run_output import Stage, goal_table
from agents.log.events import TurnEvent
from agents.simulation.progress import Curve, GoalProgress
from tests.agents.cli.kit import document, error_line, record, steer

GOALS = ("A boat.", "Cake!", "Rain.")


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    return saved


@pytest.fixture
def play(folder: Path, tmp_path: Path) -> Path:
    """A scenario file of two turns."""
    return write_scenario(tmp_path / "play.yaml", folder)


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


def log(run: Path, name: str = "events.jsonl") -> bytes:
    return (run / name).read_bytes()


# -- run and resume ----------------------------------------------------------------------------------------------------


def test_run_prints_the_folder_alone(play: Path, tmp_path: Path) -> None:
    result = steer("run", play, "--out", tmp_path / "run")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'run'}\n")
    assert "A boat." in result.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"events.jsonl", "unguided.jsonl", "transcript.md", "progress.png", "manifest.json"} <= names
    assert "A boat." not in steer("--quiet", "run", play, "--out", tmp_path / "again").stderr


def test_run_as_json(play: Path, tmp_path: Path) -> None:
    answer = document(steer("run", play, "--out", tmp_path / "run", "--json", "--turns", 1, "--no-twin"))
    assert answer["run"] == str(tmp_path / "run")
    assert (answer["summary"]["turns"], answer["summary"]["status"]) == (1, "finished")
    assert [goal["text"] for goal in answer["summary"]["goals"]] == ["A boat.", "Rain.", "Cake!"]
    assert not (tmp_path / "run" / "unguided.jsonl").exists()


def test_the_seed_of_the_command_line_wins(play: Path, tmp_path: Path) -> None:
    for name, options in (("a", []), ("b", ["--seed", 0]), ("c", ["--seed", 1])):
        assert steer("run", play, "--out", tmp_path / name, "--no-twin", *options).exit_code == 0
    assert log(tmp_path / "a") == log(tmp_path / "b") != log(tmp_path / "c")


def test_runs_are_numbered(play: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert steer("run", play, "--turns", 1, "--no-twin").stdout == f"runs/play-{number}\n"


def test_a_stopped_run_is_resumed_to_the_same_bytes(
    play: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
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
    result = steer("run", other, "--model", folder, "--out", stopped)
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
def test_scenarios_that_cannot_be_played(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = write_scenario(tmp_path / "play.yaml", folder, **changes)
    assert message in error_line(steer("run", path, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_places_that_hold_no_run_or_hold_one(play: Path, tmp_path: Path) -> None:
    assert "packaged scenarios: demo" in error_line(steer("run", "nothing"))
    assert "holds no run" in error_line(steer("resume", tmp_path))
    assert "holds no run" in error_line(steer("audit", tmp_path))
    assert "not empty" in error_line(steer("run", play, "--out", tmp_path))
    assert "give a folder" in error_line(steer("run", play, "--out", play))


# -- audit -------------------------------------------------------------------------------------------------------------


def test_audit_of_a_good_and_of_a_changed_run(play: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    steer("run", play, "--out", run)
    for options in ([], ["--replay"]):
        answer = document(steer("audit", run, "--json", *options))
        assert answer["ok"] and all(check["ok"] for check in answer["checks"])
    assert "FAILED" not in steer("audit", run).stdout

    text = (run / "events.jsonl").read_text(encoding="utf-8")
    (run / "events.jsonl").write_text(text.replace("The sun was up.", "The sun was red."), encoding="utf-8")
    result = steer("audit", run, "--json")
    assert result.exit_code == 3
    assert not json.loads(result.stdout)["ok"]
    assert "FAILED" in steer("audit", run).stdout


def test_audit_tells_of_a_changed_scenario_even_with_a_replay(play: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    steer("run", play, "--out", run, "--no-twin")
    scenario = run / "scenario.yaml"
    scenario.write_text(scenario.read_text(encoding="utf-8").replace("A boat.", "A ship."), encoding="utf-8")
    result = steer("audit", run, "--replay")
    assert (result.exit_code, "FAILED" in result.stdout) == (3, True)


# -- demo --------------------------------------------------------------------------------------------------------------


def test_demo_shows_goals_both_arms_and_the_outcome(
    play: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.scenarios.schema.packaged_scenarios", lambda: {"demo": play})
    monkeypatch.chdir(tmp_path)
    result = steer("demo")
    assert result.exit_code == 0, result.output
    shown = result.stdout
    for goal in GOALS:
        assert shown.count(goal) == 2  # before the story and after it
    places = [shown.index(part) for part in ("Hidden goals", "The sun was up.", "turn 1: Ann", "turn 2: Bob", "became")]
    assert places == sorted(places)
    assert "guided" in shown and "unguided" in shown and "Tiny [b]" in shown
    assert "The run is in runs/demo-1 (transcript.md, progress.png)" in shown
    assert "wants" not in (tmp_path / "runs/demo-1/scenario.yaml").read_text(encoding="utf-8")
    assert steer("demo", "--turns", 1, "--out", tmp_path / "short").exit_code == 0
    assert "turn 2" not in steer("demo", "--turns", 1).stdout


def turn(number: int, text: str) -> Any:
    return record(type="turn", turn=number, name="Ann", cue="\n\nAnn", text=text)


def test_a_turn_is_shown_when_both_arms_are_through_with_it() -> None:
    """Whatever the order of the arms; an arm that ended early leaves its column empty."""
    console = Console(width=100, record=True, file=io.StringIO())
    stage = Stage(console, ("guided", "unguided"))
    opening = record(type="opening", goals=(), text="Once.", title="", scenario="tiny")
    end = record(type="end")
    reached = record(type="goal", turn=1, character="ann", goal="sea", outcome="reached")
    for event in (opening, turn(1, " ran."), reached, turn(2, " sat."), end):
        stage(event, "guided")
    assert "ran" not in console.export_text(clear=False)
    for event in (opening, turn(1, " hid.")):
        stage(event, "unguided")
    assert "ran" not in console.export_text(clear=False)
    stage(end, "unguided")
    shown = console.export_text()
    row = next(line for line in shown.splitlines() if "Ann ran." in line)
    assert "Ann hid." in row and row.index("Ann ran.") < row.index("Ann hid.")
    assert "reached: ann/sea" in shown
    assert "(the story has ended)" in next(line for line in shown.splitlines() if "Ann sat." in line)
    assert shown.count("Once.") == 1


def test_a_narrow_terminal_gets_one_column() -> None:
    console = Console(width=50, record=True, file=io.StringIO())
    stage = Stage(console, ("guided", "unguided"))
    for arm in ("guided", "unguided"):
        for event in (turn(1, f" was {arm}."), record(type="end")):
            stage(event, arm)
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert lines[1:] == ["guided", "Ann was guided.", "unguided", "Ann was unguided."]


def test_the_table_of_goals_says_how_near_they_came() -> None:
    reached = Curve((0.2, 0.9), "reached", 2, 2)
    open_goal = Curve((None, 0.4), None, None, None)
    active = Curve((0.1,), None, None, None, (0.7,), since=1)
    goals = [
        GoalProgress("ann", "Ann", "sea", "avoid", "A boat.", 2, reached, open_goal),
        GoalProgress("ann", "Ann", "hill", "terminal", "Up top.", 4, active, open_goal),
    ]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(goal_table(goals))
    shown = console.export_text()
    states = ("reached, turn 2 (nearest 0.90)", "pending (nearest 0.40)", "active since turn 1 (told 0.70)")
    for part in ("Ann", "avoid: A boat.", *states):
        assert part in shown
