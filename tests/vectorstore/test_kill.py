"""A process killed at any moment loses nothing that it had acknowledged."""

import os
import random
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import pytest

import vectorstore
from vectorstore import VectorStore

ROOT = Path(vectorstore.__file__).parents[1]
DIM = 16

# A parent that has imported what is needed forks a writer for each line it reads, so that many of them start quickly.
# A writer adds batches of three, now and then deletes or changes one, and now and then reopens the store, and every
# fourth writer uses an index, which closing saves. A line is printed only after the call returned.
WRITERS = """
import os, sys
import faiss, numpy as np
from vectorstore import NewRecord, VectorStore

def write(path, run, dim):
    store = VectorStore.open(path, encoder="e", dim=dim)
    rng = np.random.default_rng(run)
    say = lambda *words: os.write(1, (" ".join(words) + "\\n").encode())
    for step in range(1_000_000):
        rows = rng.normal(size=(3, dim)).astype(np.float32)
        batch = [
            NewRecord(id=f"{run}.{step}.{i}", kind="k", text="t", vector=row, extra={"sum": float(row.sum())})
            for i, row in enumerate(rows)
        ]
        say("added", *store.add(batch))
        if step % 5 == 4:
            store.delete(batch[1].id)
            say("deleted", batch[1].id)
        if step % 5 == 3:
            store.update(batch[2].id, vector=rows[0], extra={"sum": float(rows[0].sum())})
            say("updated", batch[2].id)
        if step % 4 == 3:
            if run % 4 == 0:
                store.search(rows)
                store.optimize("hnsw" if step % 8 == 7 else "flat")
            store.close()
            store = VectorStore.open(path)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.write(1, f"writer {os.getpid()}\\n".encode())
        write(sys.argv[1], int(line), int(sys.argv[2]))
    os.waitpid(pid, 0)
    os.write(1, b"ended\\n")
"""


@pytest.mark.parametrize("rounds", [40, pytest.param(300, marks=(pytest.mark.slow, pytest.mark.torture))])
def test_acknowledged_records_survive_kills(tmp_path, rounds):
    path, chance = tmp_path / "store", random.Random(11)
    alive: set[str] = set()  # what the store is known to hold
    gone: set[str] = set()  # what is known to be deleted
    command = [sys.executable, "-c", WRITERS, str(path), str(DIM)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        for run in range(rounds):
            print(run, file=parent.stdin, flush=True)
            pid = int(parent.stdout.readline().split()[1])
            lines = [parent.stdout.readline()] if run % 3 else []  # every third may be killed before it has added any
            time.sleep(chance.uniform(0.005, 0.06))
            os.kill(pid, signal.SIGKILL)
            added, deleted = heard(lines, parent.stdout)
            thorough = run % 20 == 19 or run == rounds - 1
            with_store(path, run, alive, gone, added, deleted, thorough=thorough, chance=chance)
        parent.stdin.close()
        assert parent.wait(timeout=30) == 0
    assert len(alive) > rounds


def heard(lines: list[str], stdout: IO[str]) -> tuple[set[str], set[str]]:
    """What a writer said before it was killed, `lines` first: ids added, ids deleted."""
    added: set[str] = set()
    deleted: set[str] = set()
    for line in chain(lines, iter(stdout.readline, "ended\n")):
        word, *ids = line.split()
        if word == "added":
            added.update(ids)
        elif word == "deleted":
            deleted.update(ids)
    return added, deleted


def with_store(path, run, alive, gone, added, deleted, *, thorough, chance):
    """Compare what is on the disk with what was acknowledged, then take what is there as known."""
    if not (path / "records.sqlite").is_file():
        assert not alive and not added
        return
    with VectorStore.open(path, encoder="e", dim=DIM) as store:
        found = {record.id: record for record in store.records()}
        expected = (alive | added) - deleted
        # The last call may have been cut off between its commit and its line: then all of it is there, and no more.
        unheard, missing = found.keys() - expected, expected - found.keys()
        assert all(id.split(".")[0] == str(run) for id in unheard | missing)
        assert len(unheard) in (0, 3) and len({id.rsplit(".", 1)[0] for id in unheard}) <= 1
        assert len(missing) <= 1 and not (unheard and missing)
        assert all(id.endswith(("4.1", "9.1")) for id in missing)
        assert not (gone | deleted) & found.keys()
        assert all(float(record.vector.sum()) == record.extra["sum"] for record in found.values())
        alive.clear()
        alive.update(found)
        gone.update(deleted | missing)
        if thorough:
            assert store.verify() == []
            for id in chance.sample(sorted(found), 3):
                best = store.search(found[id].vector, 3)
                assert id in {hit.record.id for hit in best}
                assert np.isclose(best[0].score, 1)
