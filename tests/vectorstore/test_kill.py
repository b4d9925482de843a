"""A process killed at any moment loses nothing that it had acknowledged."""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import vectorstore
from vectorstore import VectorStore

ROOT = Path(vectorstore.__file__).parents[1]
DIM = 16

# Adds batches of three, now and then deletes one, and now and then reopens, which saves the index file. A line is
# printed only after the call returned.
WRITER = """
import sys, numpy as np
from vectorstore import NewRecord, VectorStore
path, run, dim = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = VectorStore.open(path, encoder="e", dim=dim)
rng = np.random.default_rng(int(run))
for step in range(1_000_000):
    rows = rng.normal(size=(3, dim)).astype(np.float32)
    batch = [
        NewRecord(kind="k", text=f"{run}.{step}", vector=row, id=f"{run}.{step}.{i}", extra={"sum": float(row.sum())})
        for i, row in enumerate(rows)
    ]
    print("added", *store.add(batch), flush=True)
    if step % 5 == 4:
        store.delete(batch[1].id)
        print("deleted", batch[1].id, flush=True)
    if step % 10 == 9:
        store.search(rows)
        store.close()
        store = VectorStore.open(path)
"""


def test_acknowledged_records_survive_sigkill(tmp_path):
    path, chance = tmp_path / "store", random.Random(11)
    alive, deleted, attempted = set(), set(), set()
    for run in range(10):
        command = [sys.executable, "-c", WRITER, str(path), str(run), str(DIM)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline()]
            time.sleep(chance.uniform(0, 0.3))
            child.kill()
            lines += child.stdout.readlines()
        assert child.returncode == -9
        for line in (line for line in lines if line.endswith("\n")):
            word, *ids = line.split()
            if word == "added":
                alive.update(ids)
                attempted.update(ids)
            else:
                alive.difference_update(ids)
                deleted.update(ids)

        with VectorStore.open(path) as store:
            found = {record.id: record for record in store.records()}
            # A call may have been cut off between its commit and its line: then all of it is there, and no more.
            unheard = set(found) - attempted
            assert {id.rsplit(".", 1)[0] for id in unheard} <= {f"{run}.{step}" for step in range(10_000)}
            assert len(unheard) in (0, 3)
            unheard_deletions = alive - set(found)
            assert len(unheard_deletions) <= 1
            assert all(id.endswith("4.1") or id.endswith("9.1") for id in unheard_deletions)
            assert not deleted & set(found)
            alive, attempted = set(found), attempted | unheard
            deleted |= unheard_deletions

            assert all(float(record.vector.sum()) == record.extra["sum"] for record in found.values())
            assert store.verify() == []
            for id in chance.sample(sorted(found), 3):
                hit = store.search(found[id].vector, 1)[0]
                assert hit.record.id == id
                assert np.isclose(hit.score, 1)
    assert len(alive) > 30
