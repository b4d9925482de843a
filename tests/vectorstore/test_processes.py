"""Several processes on one folder."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vectorstore
from vectorstore import StoreLocked, VectorStore
from vectorstore.table import database

ROOT = Path(vectorstore.__file__).parents[1]
DIM = 8

# Each batch holds vectors with one sum in `extra`; a reader must see whole batches only, and never fewer than before.
WRITER = """
import sys, numpy as np
from vectorstore import VectorStore
store = VectorStore.open(sys.argv[1])
rng = np.random.default_rng(1)
for step in range(60):
    rows = rng.normal(size=(10, 8)).astype(np.float32)
    store.add_batch(rows, ["t"] * 10, kind="span", ids=[f"{step}.{i}" for i in range(10)])
    if step % 20 == 19:
        store.optimize("hnsw" if step == 39 else "flat")
store.close()
print("done", flush=True)
"""
READER = """
import sys, numpy as np
from vectorstore import EmptyStore, VectorStore
query, seen, rounds = np.ones(8, np.float32), 0, 0
with VectorStore.open(sys.argv[1], readonly=True, mmap=sys.argv[2] == "mmap") as store:
    while seen < 600:
        try:
            hits = store.search(query, 1000)
        except EmptyStore:
            continue
        ids = {hit.record.id for hit in hits}
        assert len(ids) == len(hits) and len(hits) % 10 == 0 and len(hits) >= seen, (len(hits), seen)
        assert len(ids) > 300 or store.verify() == []
        seen, rounds = len(hits), rounds + 1
print("saw", rounds, flush=True)
"""
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1] + "/records.sqlite", isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("holding", flush=True)
sys.stdin.readline()
"""


def child(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_readers_see_whole_batches_while_another_process_writes(folder):
    VectorStore.open(folder, encoder="e", dim=DIM).close()
    children = [child(READER, folder, "read"), child(READER, folder, "mmap"), child(WRITER, folder)]
    for process in children:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert out.split()[0] in ("saw", "done")
    with VectorStore.open(folder) as store:
        assert len(store) == 600
        assert store.verify() == []


def test_a_second_writer_waits_and_then_says_that_the_store_is_locked(folder, make, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        store.add(make(2))
        with child(HOLDER, folder) as holder:
            assert holder.stdout is not None and holder.stdin is not None
            assert holder.stdout.readline() == "holding\n"
            with VectorStore.open(folder) as second:
                with pytest.raises(StoreLocked, match="locked by another writer"):
                    second.add(make(1, start=5))
                assert len(second.search(np.ones(DIM, np.float32))) == 2
            with pytest.raises(StoreLocked):
                VectorStore.repair(folder)
            holder.stdin.close()
            holder.wait(timeout=30)
        store.add(make(1, start=5))
        assert len(store) == 3


class BusyConnection:
    """Says so many times that the file is busy."""

    class Busy(sqlite3.OperationalError):
        sqlite_errorcode = sqlite3.SQLITE_BUSY

    def __init__(self, times):
        self.left = times

    def execute(self, statement):
        self.left -= 1
        if self.left >= 0:
            raise self.Busy("database is locked")
        return sqlite3.connect(":memory:").execute("SELECT 'wal'")


def test_a_new_store_that_is_busy_for_a_moment_is_waited_for():
    assert database._write_ahead(BusyConnection(3)) == "wal"  # type: ignore[arg-type]


def test_a_new_store_that_stays_busy_is_told(monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    with pytest.raises(sqlite3.OperationalError):
        database._write_ahead(BusyConnection(10**9))  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_empty_log_keeps_nobody_from_reading_where_nothing_can_be_written(folder, make):
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        store.add(make(2))
    (folder / "records.sqlite-wal").touch()
    folder.chmod(0o500)
    try:
        with VectorStore.open(folder, readonly=True) as store:
            assert len(store) == 2
    finally:
        folder.chmod(0o700)


def test_deletions_of_another_process_are_seen(folder, make):
    script = "import sys; from vectorstore import VectorStore; VectorStore.open(sys.argv[1]).delete_where(kind='span')"
    query = np.ones(DIM, np.float32)
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        store.add(make(40))
        store.optimize("hnsw")
        assert len(store.search(query, 50)) == 40
        process = child(script, folder)
        assert process.communicate(timeout=60)[1] == ""
        assert {hit.record.kind for hit in store.search(query, 50)} == {"terminal"}
        assert store.verify() == []
