"""`steer demo`, and what a run looks like on a terminal."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.cli._run_output import Stage, goal_table
from agents.simulation.progress import Curve, GoalProgress
from tests.agents.cli.conftest import GOALS
from tests.agents.cli.kit import record, steer


def test_demo_shows_goals_both_arms_and_the_outcome(
    play: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.scenarios.loading.packaged_scenarios", lambda: {"demo": play})
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
    monkeypatch.setattr("agents.cli.demo.draw", lambda say, folder: folder / "progress.png")
    other = shutil.copytree(saved, tmp_path / "other")
    short = steer("demo", "--turns", 1, "--out", tmp_path / "short", "--model", other)
    assert short.exit_code == 0 and (tmp_path / "short" / "transcript.md").is_file()
    assert "turn 2" not in short.stdout
    assert str(other) in (tmp_path / "short" / "scenario.yaml").read_text(encoding="utf-8"), "for steer resume"


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
