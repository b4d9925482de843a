"""Cells: their plan, their files, and who may work on which."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.errors import RunDamaged
from agents.experiments.cells import CellStore, Record, plan_cells
from agents.experiments.folder import claim
from tests.agents.experiments.kit import PAIRS, experiment, sample


def test_the_plan_holds_every_sample_once(tmp_path: Path) -> None:
    small = experiment(tmp_path, seeds=[3, 4])
    cells = plan_cells(small, 5)
    samples = [(c.variant.name, c.seed, i) for c in cells for i in range(c.start, c.stop)]
    assert len(samples) == len(set(samples)) == 3 * 2 * 5
    assert len({cell.key for cell in cells}) == len(cells)
    # A whole chunk has the same name whatever comes behind it: a larger limit goes on with what is there.
    assert {c.key for c in cells if c.stop == c.start + 2} <= {c.key for c in plan_cells(small, 6)}


def test_samples_and_numbers_come_back(tmp_path: Path) -> None:
    cell = plan_cells(experiment(tmp_path), 6)[0]
    store = CellStore(tmp_path / "run", PAIRS)
    assert store.records(cell) is None and store.measures(cell) == {}
    records = [Record("plain", 0, pair, sample("A \u2028 b.", ' "C"', ended=True)) for pair in PAIRS[:2]]
    store.save_records(cell, records)
    store.save_measures(cell, {"a": np.array([1.5, np.nan])})
    assert store.records(cell) == records
    assert store.measures(cell)["a"].tolist() == pytest.approx([1.5, np.nan], nan_ok=True)
    assert store.is_done(cell, ["a"]) and not store.is_done(cell, ["a", "b"])


def test_changed_files_are_told(tmp_path: Path) -> None:
    cell = plan_cells(experiment(tmp_path), 6)[0]
    store = CellStore(tmp_path / "run", PAIRS)
    store.save_records(cell, [Record("other", 0, pair, sample("A")) for pair in PAIRS[:2]])
    with pytest.raises(RunDamaged, match="a line of another cell; delete it"):
        store.records(cell)
    store.save_records(cell, [Record("plain", 0, PAIRS[0], sample("A"))])
    with pytest.raises(RunDamaged, match="delete it"):
        store.records(cell)
    store.save_measures(cell, {"a": np.zeros(3)})
    with pytest.raises(RunDamaged, match="another number of samples"):
        store.measures(cell)


def test_a_claim_is_one_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with claim(path) as first:
        assert first and str(os.getpid()) in path.read_text()
        with claim(path) as second:
            assert not second
        assert path.exists()
    assert not path.exists()
    with claim(path) as third:
        assert third


# What `claim` does to its file, without the seconds that importing the package takes.
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with claim(path) as mine:
        assert not mine
    child.kill()
    child.communicate()
    assert path.exists()  # nobody was left to delete it
    with claim(path, wait=True) as mine:
        assert mine
