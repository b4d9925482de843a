"""The cached index file: used when it fits, rebuilt when it does not."""

import logging
import shutil
import sqlite3

import numpy as np
import pytest

from vectorstore import Metric, VectorStore, database
from vectorstore.index import FlatIndex
from vectorstore.records import RecordTable
from vectorstore.sync import SyncedIndex

DIM = 8
QUERY = np.ones(DIM, np.float32)


@pytest.fixture
def saved(folder, make):
    """The folder of a closed store of 20 records whose index is cached."""
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        store.add(make(20))
        store.search(QUERY)
    assert (folder / "index.faiss").is_file()
    return folder


def rows_read(monkeypatch):
    """A list that receives every batch of rows that an index is built from."""
    batches, plain = [], RecordTable.vectors

    def vectors(self, after=0):
        for nums, rows in plain(self, after):
            batches.append(len(nums))
            yield nums, rows

    monkeypatch.setattr(RecordTable, "vectors", vectors)
    return batches


def test_a_fitting_file_is_used_and_not_written_again(saved, monkeypatch):
    batches = rows_read(monkeypatch)
    before = (saved / "index.faiss").stat().st_mtime_ns
    with VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 20
    assert batches == []
    assert (saved / "index.faiss").stat().st_mtime_ns == before


def test_later_records_are_added_to_the_index_and_cached(saved, make, monkeypatch):
    batches = rows_read(monkeypatch)
    with VectorStore.open(saved) as store:
        store.search(QUERY)
        store.add(make(3, start=20))
        store.delete("r0")
        assert len(store.search(QUERY, 50)) == 22
    with VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 22
    assert batches == [3]


def test_the_row_number_of_a_deleted_record_is_not_used_again(saved, make):
    with VectorStore.open(saved) as store:
        store.search(QUERY)
        store.delete("r19")  # the last one, whose number SQLite would otherwise give to the next
        new = make(1, start=40)
        store.add(new)
        assert store.search(new[0].vector, 1)[0].record.id == "r40"
        assert store.verify() == []


def test_a_store_that_was_never_searched_writes_no_index(store, folder, make):
    store.add(make(3))
    store.close()
    assert sorted(path.name for path in folder.iterdir()) == ["records.sqlite"]


def spoil_byte(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0x10
    return bytes(changed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: spoil_byte(data, -5),
        lambda data: spoil_byte(data, len(data) // 2),
        lambda data: b"[]\n",
        lambda data: b"\xff\xfe\n\n" + data,
    ],
)
def test_a_damaged_file_is_noticed_and_replaced(saved, spoil, caplog):
    file = saved / "index.faiss"
    file.write_bytes(spoil(file.read_bytes()))
    with caplog.at_level(logging.INFO, "vectorstore"), VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 20
        assert store.verify() == []
    assert "rebuilding it from the records" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "vectorstore"), VectorStore.open(saved) as store:
        store.search(QUERY)
    assert caplog.text == ""


def test_a_stale_file_is_noticed(saved, make):
    with VectorStore.open(saved) as store:
        store.delete("r0")
        store.add(make(1, start=30))  # as many as before, and the index is not touched
    with VectorStore.open(saved) as store:
        assert {hit.record.id for hit in store.search(QUERY, 50)} == {f"r{i}" for i in range(1, 20)} | {"r30"}
        assert store.verify() == []


def test_the_file_of_a_lost_branch_of_history_is_noticed(saved, make):
    backup = saved.with_name("backup")
    shutil.copytree(saved, backup)
    with VectorStore.open(saved) as store:
        store.add(make(1, start=100))
        store.search(QUERY)
    shutil.copy(backup / "records.sqlite", saved / "records.sqlite")
    with VectorStore.open(saved) as store:
        new = make(1, start=200)  # the same row number and count as the lost record, another vector
        store.add(new)
        assert store.search(new[0].vector, 1)[0].record.id == "r200"
        assert store.verify() == []


def test_the_file_of_another_store_is_noticed(saved, make):
    other = saved.with_name("other")
    with VectorStore.open(other, encoder="e", dim=DIM) as store:
        store.add(make(20))
        shutil.copy(saved / "index.faiss", other / "index.faiss")
        assert store.verify() == []


def test_an_index_that_cannot_be_saved_is_logged_and_closing_goes_on(saved, make, monkeypatch, caplog):
    def fail(self, file, stamp):
        raise OSError(28, "No space left on device")

    with VectorStore.open(saved) as store:
        store.add(make(1, start=20))
        store.search(QUERY)
        monkeypatch.setattr(FlatIndex, "save", fail)
    assert "was not saved" in caplog.text
    monkeypatch.undo()
    with VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 21


def test_a_failed_save_keeps_the_old_file(saved, monkeypatch):
    def fail(source, target):
        raise OSError(5, "Input/output error")

    before = (saved / "index.faiss").read_bytes()
    index = FlatIndex(DIM, Metric.L2)
    monkeypatch.setattr("vectorstore.index.os.replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        index.save(saved / "index.faiss", {})
    assert (saved / "index.faiss").read_bytes() == before
    assert not list(saved.glob("*.part"))


def test_closing_while_another_writes_skips_the_cache_only(saved, make, monkeypatch, caplog):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    store = VectorStore.open(saved)
    store.add(make(1, start=20))
    store.search(QUERY)
    holder = sqlite3.connect(saved / "records.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    store.close()
    holder.execute("ROLLBACK")
    holder.close()
    assert "was not saved" in caplog.text


def test_verify_sees_an_index_that_differs_and_rebuild_mends_it(saved, monkeypatch):
    def sync_wrongly(self):
        index = plain(self)
        index.keep(index.nums()[1:])
        return index

    plain = SyncedIndex.sync
    with VectorStore.open(saved) as store:
        monkeypatch.setattr(SyncedIndex, "sync", sync_wrongly)
        assert store.verify() == ["the index holds 19 vectors under other numbers than the 20 records"]
        monkeypatch.undo()
        store.rebuild()
        assert store.verify() == []
        index = store._index.sync()
        index.keep(index.nums()[:-1])
        index.add(np.array([20]), np.ones((1, DIM), np.float32))
        assert store.verify() == ["the index holds another vector than the record in row 20"]
        store.rebuild()
        assert store.verify() == []
