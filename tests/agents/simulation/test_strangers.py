"""A run's folder may be from a stranger: nothing in it leads us out of it, or lets us wait."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.errors import RunDamaged
from agents.plots.progress import plot_progress
from agents.scenarios.schema import Scenario
from agents.simulation.audit import audit_run
from agents.simulation.manifest import read_manifest
from agents.simulation.progress import read_progress
from agents.simulation.simulation import resume_run, run_scenario
from agents.simulation.transcript import render_transcript
from steer.models.latent_model import LatentModel

NAMES = (
    *("events.jsonl", "unguided.jsonl", "manifest.json", "scenario.yaml", "timings.jsonl", "transcript.md"),
    *("transcript.md.part", "manifest.json.part", "scenario.yaml.part", "progress.png", "progress.png.part"),
    *("store/records.sqlite", "store/records.sqlite-wal", "store/records.sqlite-shm", "store/records.sqlite-journal"),
    *("store", "search", "anything"),
)


@pytest.fixture(scope="module")
def stopped(scenario: Scenario, model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that can be resumed: nothing but the end is missing."""
    run = run_scenario(scenario, model, tmp_path_factory.mktemp("runs") / "stopped", turns=2).path
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"finished": None, "logs": {}}))
    return run


@pytest.fixture
def calls(model: LatentModel) -> list[Callable[[Path], object]]:
    return [
        lambda run: resume_run(run, model),
        audit_run,
        read_manifest,
        read_progress,
        plot_progress,
        render_transcript,
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
def test_what_is_no_plain_file_is_refused(
    stopped: Path, tmp_path: Path, calls: list[Callable[[Path], object]], name: str, kind: str
) -> None:
    run, precious = tmp_path / "run", tmp_path / "precious"
    shutil.copytree(stopped, run)
    place = run / name
    if place.is_dir():
        shutil.move(place, precious)
    else:
        shutil.copy(place if place.exists() else run / "transcript.md", precious)
        place.unlink(missing_ok=True)
    before = {path: path.read_bytes() for path in (precious, *precious.rglob("*")) if path.is_file()}
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(precious if kind == "link" else tmp_path / "nowhere")
    for call in calls:
        with pytest.raises(RunDamaged, match=rf"{name}: it is (a link|no plain file)"):
            call(run)
    assert {path: path.read_bytes() for path in (precious, *precious.rglob("*")) if path.is_file()} == before
    assert not (tmp_path / "nowhere").exists()


def test_a_run_is_resumed_from_a_folder_that_is_a_link_itself(
    stopped: Path, tmp_path: Path, model: LatentModel
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    assert resume_run(tmp_path / "latest", model).status == "finished"
    assert (tmp_path / "run" / "transcript.md").read_bytes() == (stopped / "transcript.md").read_bytes()
