"""Cells: their plan, their files, and who may work on which."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.errors import RunDamaged
from agents.experiments.folder import CELLS, claim, make_folder
from agents.experiments.pairs.cells import (
    is_done,
    plan_cells,
    read_measures,
    read_samples,
    save_measures,
    save_samples,
)
from steer.data.pairs import Pair
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
    make_folder(tmp_path, CELLS)
    assert read_samples(tmp_path, cell, PAIRS[:2]) is None and read_measures(tmp_path, cell) == {}
    samples = [sample("A \u2028 b.", ' "C"', ended=True)] * 2
    save_samples(tmp_path, cell, PAIRS[:2], samples)
    save_measures(tmp_path, cell, {"a": np.array([1.5, np.nan])})
    assert read_samples(tmp_path, cell, PAIRS[:2]) == samples
    assert read_measures(tmp_path, cell)["a"].tolist() == pytest.approx([1.5, np.nan], nan_ok=True)
    assert is_done(tmp_path, cell, ["a"]) and not is_done(tmp_path, cell, ["a", "b"])


def test_changed_files_are_told(tmp_path: Path) -> None:
    cell, other, *_ = plan_cells(experiment(tmp_path), 6)
    make_folder(tmp_path, CELLS)
    pairs, folder = PAIRS[:2], tmp_path / CELLS
    save_samples(tmp_path, other, pairs, [sample("A")] * 2)
    (folder / f"{other.key}.jsonl").rename(folder / f"{cell.key}.jsonl")
    with pytest.raises(RunDamaged, match="its seal does not fit what it holds; delete it"):
        read_samples(tmp_path, cell, pairs)
    save_samples(tmp_path, cell, pairs, [sample("A")] * 2)
    with pytest.raises(RunDamaged, match="a line of another cell"):
        read_samples(tmp_path, cell, [pairs[0], Pair("p9", "a", "b")])
    save_samples(tmp_path, cell, pairs[:1], [sample("A")])
    with pytest.raises(RunDamaged, match="delete it"):
        read_samples(tmp_path, cell, pairs)
    save_measures(tmp_path, cell, {"a": np.zeros(3)})
    with pytest.raises(RunDamaged, match="another number of samples"):
        read_measures(tmp_path, cell)


@pytest.mark.parametrize("kind", [".jsonl", ".measures.json"])
def test_texts_and_numbers_are_sealed(tmp_path: Path, kind: str) -> None:
    cell, other, *_ = plan_cells(experiment(tmp_path), 6)
    make_folder(tmp_path, CELLS)
    (tmp_path / "experiment.json").write_text("{}")
    pairs, folder = PAIRS[:2], tmp_path / CELLS
    for one, letter, number in ((cell, "A", 1.0), (other, "B", 2.0)):
        save_samples(tmp_path, one, pairs, [sample(letter)] * 2)
        save_measures(tmp_path, one, {"a": np.full(2, number)})
    path, content = folder / f"{cell.key}{kind}", (folder / f"{cell.key}{kind}").read_bytes()

    def read() -> object:
        return read_samples(tmp_path, cell, pairs), read_measures(tmp_path, cell)

    read()
    changes = [
        content.replace(b"1.0", b"3.0"),
        content.replace(b'"A"', b'"B"'),
        content[:-1],
        content[:40],
        b"",
        b"\xff",
    ]
    changes.append((folder / f"{other.key}{kind}").read_bytes())
    for changed in changes:
        path.write_bytes(changed)
        if changed != content:
            with pytest.raises(RunDamaged, match="was changed.*delete it"):
                read()
    path.write_bytes(content)
    read()
    (tmp_path / "experiment.json").write_text("{ }")  # cells of another experiment
    with pytest.raises(RunDamaged, match="seal"):
        read()


def test_numbers_of_other_samples_are_taken_again(tmp_path: Path) -> None:
    cell, *_ = plan_cells(experiment(tmp_path), 6)
    make_folder(tmp_path, CELLS)
    save_samples(tmp_path, cell, PAIRS[:2], [sample("A")] * 2)
    save_measures(tmp_path, cell, {"a": np.zeros(2)})
    save_samples(tmp_path, cell, PAIRS[:2], [sample("B")] * 2)
    assert read_measures(tmp_path, cell) == {}


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
