"""`steer experiment`: what it prints, where, and how it fails."""

import io
from pathlib import Path

import pytest

from agents.cli.experiment import clock, progress_table
from agents.experiments.kind import Tally
from tests.agents.cli.kit import document, error_line, steer
from tests.agents.experiments.kit import write_file


@pytest.fixture
def file(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("steer.evaluation.judge.judge_folder", lambda: None)
    return write_file(tmp_path, model=str(saved))


def test_a_run_prints_its_tables_and_a_second_one_does_nothing(file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = steer("experiment", file, "--out", run, "--limit", 2)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("# small\n") and "| pulled |" in first.stdout
    assert "pulled, seed 0, pairs 0-1 (3/3)" in first.stderr
    assert "pip install 'steer[judge]'" in first.stderr
    second = steer("experiment", file, "--out", run, "--limit", 2)
    assert second.stdout == first.stdout
    assert "nothing to do: all 3 cells" in second.stderr
    answer = document(steer("experiment", file, "--out", run, "--limit", 2, "--json"))
    assert (answer["cells"], answer["written"], answer["reference"]) == (3, 0, "plain")
    assert [arm["name"] for arm in answer["arms"]] == ["plain", "none", "pulled"]


def test_a_dry_run_writes_nothing(file: Path, tmp_path: Path) -> None:
    answer = document(steer("experiment", file, "--out", tmp_path / "run", "--dry-run", "--json"))
    assert (answer["cells"], answer["done"]) == (9, 0)
    assert answer["tokens"] > 0 and answer["seconds"] > 0 and answer["memory"] > 0
    assert "0 of 9 cells are done" in steer("experiment", file, "--out", tmp_path / "run", "--dry-run").stdout
    assert not (tmp_path / "run").exists()


def test_mistakes(file: Path, tmp_path: Path) -> None:
    assert "cannot read experiment" in error_line(steer("experiment", tmp_path / "none.yaml"))
    file.write_text(file.read_text(encoding="utf-8") + "colour: red\n", encoding="utf-8")
    assert "colour: unknown key" in error_line(steer("experiment", file, "--out", tmp_path / "run"))


def test_what_is_shown_while_it_runs() -> None:
    from rich.console import Console

    tallies = {"plain": Tally(cells=4, done=1, texts=20, hits=5, tokens=3000, seconds=30), "rest": Tally(cells=4)}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(progress_table(tallies, unit="texts", success="nearest"))
    shown = console.export_text()
    for part in ("plain", "1/4", "25%", "100", "2 min", "0/4"):
        assert part in shown


def test_times_for_people() -> None:
    assert [clock(s) for s in (0.4, 89, 90, 3600, 12_000)] == ["0 s", "89 s", "2 min", "60 min", "3 h 20 min"]
