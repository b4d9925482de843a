"""What is made from the logs: figures, transcript, plot."""

import json
from pathlib import Path

import pytest

from agents.errors import RunNotFound
from agents.plots.progress import plot_progress
from agents.scenarios.schema import Scenario
from agents.simulation.progress import read_progress
from agents.simulation.simulation import run_scenario
from agents.simulation.transcript import render_transcript
from steer.models.latent_model import LatentModel
from tests.agents.conftest import make_scenario


@pytest.fixture(scope="module")
def played(scenario: Scenario, model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_scenario(scenario, model, tmp_path_factory.mktemp("runs") / "played").path


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_figures_are_those_of_the_log(played: Path) -> None:
    progress = read_progress(played)
    assert (progress.title, progress.turns, progress.threshold) == ("Tiny", 4, 0.9)
    rows = [json.loads(line) for line in (played / "events.jsonl").read_bytes().splitlines()]
    for goal in progress.goals:
        expected = [row["similarities"][f"{goal.character}/{goal.goal}"] for row in rows if row["type"] == "turn"]
        assert list(goal.guided.similarities) == expected
        assert goal.guided.best == max(expected)
        assert goal.guided.outcome in ("reached", "failed", "kept")


def test_the_transcript_holds_the_story_in_order(played: Path) -> None:
    text = render_transcript(played)
    assert (played / "transcript.md").read_bytes().decode() == text
    assert "\0" not in text and "\x1b" not in text and "\r" not in text
    assert text.index("# Tiny") < text.index("The sun was up.") < text.index("\nAnn") < text.index("\nBob")
    assert text.count("The sun was up.") == text.count("*End: 4 turns.*") == 2
    assert "> Ann wants (sea, by turn 2): A boat." in text


def test_markup_is_escaped(model: LatentModel, tmp_path: Path) -> None:
    scenario = make_scenario(opening="*Stars* and <b>bold</b>\n# not a title", turns=2, title="$a_b$")
    text = render_transcript(run_scenario(scenario, model, tmp_path / "run", baseline=False).path)
    assert "\\*Stars\\* and \\<b\\>bold\\</b\\>\n\\# not a title" in text
    assert "# \\$a_b\\$" in text


def test_plots(played: Path, model: LatentModel, tmp_path: Path) -> None:
    path = plot_progress(played)
    assert path == played / "progress.png"
    width, height = png_size(path)
    assert width > 1000 and height > 600
    # Nothing in a title is taken for mathematics, and a run without goals or baseline has a figure, too.
    odd = make_scenario(title="$\\bad{", turns=1, characters=[{"id": "eve", "name": "Eve"}])
    png_size(plot_progress(run_scenario(odd, model, tmp_path / "run", baseline=False).path))


def test_nothing_to_read(tmp_path: Path, played: Path) -> None:
    for read in (render_transcript, plot_progress, read_progress):
        with pytest.raises(RunNotFound, match="holds no run"):
            read(tmp_path)
    (tmp_path / "manifest.json").write_bytes((played / "manifest.json").read_bytes())
    for read in (render_transcript, plot_progress, read_progress):
        with pytest.raises(RunNotFound, match="steer resume"):
            read(tmp_path)
