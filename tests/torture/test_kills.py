"""Processes killed at any moment: nothing that was acknowledged is lost, and the same command again ends alike."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.errors import RunNotFound
from agents.experiments.run import run_experiment
from agents.index.build import build_index, open_index
from agents.index.passages import Cutter
from agents.scenarios.schema import Scenario
from agents.simulation.audit import audit_run
from agents.simulation.simulation import resume_run, run_scenario
from steer.models.latent_model import LatentModel
from tests.agents.experiments.kit import Letters, experiment
from tests.agents.index.test_build import DOCUMENTS, records_of

pytestmark = [pytest.mark.torture, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")]


def start(work: Callable[[], object]) -> int:
    """A child that does the work and ends with 0, or with 1 if that failed."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def kill_until_done(work: Callable[[], object], chance: random.Random, seconds: float, most: int) -> int:
    """Start the work again and again, killed after up to so many seconds, then let it end; count the kills."""
    kills = 0
    while kills < most:
        pid = start(work)
        time.sleep(chance.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        kills += 1
    _, status = os.waitpid(start(work), 0)
    assert status == 0
    return kills


def duration(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_runs(tmp_path: Path, scenario: Scenario, model: LatentModel, share: float) -> None:
    whole, chance, kills = tmp_path / "whole", random.Random(1), 0
    seconds = duration(lambda: run_scenario(scenario, model, whole))
    for number in range(10_000):
        run = tmp_path / f"run-{number}"

        def work(run: Path = run) -> None:
            if (run / "manifest.json").exists():
                resume_run(run, model)
            else:
                run_scenario(scenario, model, run)

        def work_anew(run: Path = run, work: Callable[[], None] = work) -> None:
            if run.exists() and not (run / "manifest.json").exists():
                try:
                    audit_run(run)
                except RunNotFound as error:  # it was stopped before it began, and says so
                    assert "delete the folder and run again" in str(error) or not (run / "store").exists()
                shutil.rmtree(run)
            work()

        kills += kill_until_done(work_anew, chance, seconds, most=12)
        for name in ("events.jsonl", "unguided.jsonl", "transcript.md", "scenario.yaml"):
            assert (run / name).read_bytes() == (whole / name).read_bytes()
        report = audit_run(run, model=model)
        assert report.ok, [check for check in report.checks if not check.ok]
        if kills >= 100 * share:
            break


def test_experiments_with_two_workers(tmp_path: Path, model: LatentModel, share: float) -> None:
    made = experiment(tmp_path, chunk=1, seeds=[0, 1])
    chance, kills = random.Random(2), 0

    def work(folder: Path) -> None:
        run_experiment(made, folder, lambda: model, open_judge=Letters)

    def told(folder: Path) -> dict[str, list[str]]:
        """All cells but for their seconds, which the clock decides."""
        found: dict[str, list[str]] = {}
        for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(f"{row['arm']} {row['seed']} {row['pair']}", []).append(row["text"])
        return found

    seconds = duration(lambda: work(tmp_path / "whole"))
    for number in range(10_000):
        folder = tmp_path / f"run-{number}"
        for _ in range(8):
            pids = [start(lambda folder=folder: work(folder)) for _ in range(2)]
            time.sleep(chance.uniform(0, seconds))
            os.kill(pids[0], signal.SIGKILL)
            killed = os.WIFSIGNALED(os.waitpid(pids[0], 0)[1])
            if chance.random() < 0.5:
                os.kill(pids[1], signal.SIGKILL)
                killed += os.WIFSIGNALED(os.waitpid(pids[1], 0)[1])
            else:
                assert os.waitpid(pids[1], 0)[1] == 0  # the other one ends, and does what the killed one had claimed
            kills += killed
        assert os.waitpid(start(lambda folder=folder: work(folder)), 0)[1] == 0
        assert told(folder) == told(tmp_path / "whole")
        if kills >= 50 * share:
            break


def test_builds_of_an_index(tmp_path: Path, model: LatentModel, share: float) -> None:
    chance, kills = random.Random(3), 0

    def work(folder: Path) -> None:
        with open_index(folder, model, create=True) as store:
            build_index(model, store, DOCUMENTS, Cutter(model), batch=1)
            store.rebuild()

    seconds = duration(lambda: work(tmp_path / "whole"))
    expected = records_of(tmp_path / "whole", model)
    for number in range(10_000):
        folder = tmp_path / f"index-{number}"
        kills += kill_until_done(lambda folder=folder: work(folder), chance, seconds, most=8)
        assert records_of(folder, model) == expected
        with open_index(folder, model) as store:
            assert store.verify() == []
        if kills >= 50 * share:
            break
