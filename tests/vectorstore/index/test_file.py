"""The cached index file: used when it fits, rebuilt when it does not."""

import logging
import shutil
import sqlite3

import numpy as np
import pytest

from vectorstore import StorageFailure, VectorStore
from vectorstore.index.backends import make_backend
from vectorstore.index.backends.flat import FlatIndex
from vectorstore.index.config import IndexConfig
from vectorstore.index.file import save_segment
from vectorstore.index.segment import Segment
from vectorstore.index.sync import SyncedIndex
from vectorstore.table import database
from vectorstore.table.records import RecordTable

DIM = 8
QUERY = np.ones(DIM, np.float32)


def index_file(folder):
    """The one index file of a folder."""
    (file,) = folder.glob("index*")
    return file


@pytest.fixture
def saved(folder, make):
    """The folder of a closed store of 20 records whose index is cached."""
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        store.add(make(20))
        store.search(QUERY)
    assert index_file(folder).is_file()
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
    before = index_file(saved).stat().st_mtime_ns
    with VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 20
    assert batches == []
    assert index_file(saved).stat().st_mtime_ns == before


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
        lambda data: b"\xff\xfe\n\n" + data[4:],
    ],
)
def test_a_damaged_file_is_noticed_and_replaced(saved, spoil, caplog):
    file = index_file(saved)
    file.write_bytes(spoil(file.read_bytes()))
    with caplog.at_level(logging.INFO, "vectorstore"), VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 20
        assert store.verify() == [f"the index file {file.name} is damaged; rebuild() writes it again"]
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
        store.search(QUERY)
    shutil.copy(index_file(saved), index_file(other))
    with VectorStore.open(other) as store:
        assert store.verify() == [f"the index file {index_file(other).name} is damaged; rebuild() writes it again"]
        expected = {record.id: record.vector.tobytes() for record in store.records()}
        assert {hit.record.id: hit.record.vector.tobytes() for hit in store.search(QUERY, 50)} == expected
        store.rebuild()
        assert store.verify() == []


def test_an_index_that_cannot_be_saved_is_logged_and_closing_goes_on(saved, make, monkeypatch, caplog):
    def fail(self, file, nums):
        raise OSError(28, "No space left on device")

    with VectorStore.open(saved) as store:
        store.add(make(2, start=20))
        store.search(QUERY)
        monkeypatch.setattr(FlatIndex, "save", fail)
    assert "was not saved" in caplog.text
    monkeypatch.undo()
    with VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 22


def test_a_failed_save_keeps_the_old_file(saved, monkeypatch, make):
    def fail(source, target):
        raise OSError(5, "Input/output error")

    before = index_file(saved).read_bytes()
    with VectorStore.open(saved) as store:
        store.add(make(10, start=20))
        monkeypatch.setattr("vectorstore.index.file.os.replace", fail)
        with pytest.raises(StorageFailure, match="Input/output"):
            store.rebuild()
        monkeypatch.undo()
        assert index_file(saved).read_bytes() == before


def test_a_file_left_by_a_killed_process_is_swept_away(saved, make):
    stray = saved / "index-000000000000.faiss"
    stray.write_bytes(b"x")
    fresh = saved / "index-111111111111.faiss.part"  # perhaps another process is writing it
    fresh.touch()
    with VectorStore.open(saved) as store:
        store.add(make(10, start=20))
        store.rebuild()
    assert {file.suffix for file in saved.glob("index*")} == {".faiss", ".part"}
    assert not stray.exists()
    fresh.unlink()
    assert index_file(saved).is_file()


def test_files_of_others_in_the_folder_stay(saved, make):
    names = ["index.html", "index.md", "index-of-names.faiss", "index.backup.tar", "index-0123456789ab.faiss.bak"]
    for name in names:
        (saved / name).write_text("mine")
    with VectorStore.open(saved) as store:
        store.add(make(10, start=20))
        store.rebuild()
    assert [(saved / name).read_text() for name in names] == ["mine"] * len(names)


def test_a_process_killed_between_the_file_and_its_stamp_leaves_the_older_index(saved, make, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(self, key, value):
        raise Killed

    with VectorStore.open(saved) as store:
        store.add(make(10, start=20))
        monkeypatch.setattr(RecordTable, "set_value", kill)
        with pytest.raises(Killed):
            store.rebuild()
        monkeypatch.undo()
        store._index._segments = []  # what the process had in memory is gone
        assert store.verify() == []
        assert len(store.search(QUERY, 50)) == 30


def test_closing_while_another_writes_skips_the_cache_only(saved, make, monkeypatch, caplog):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    store = VectorStore.open(saved)
    store.add(make(2, start=20))
    store.search(QUERY)
    holder = sqlite3.connect(saved / "records.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    store.close()
    holder.execute("ROLLBACK")
    holder.close()
    assert "was not saved" in caplog.text


def test_verify_sees_an_index_that_differs_and_rebuild_mends_it(saved):
    with VectorStore.open(saved) as store:
        assert store.verify() == []
        (segment,) = store._index.segments
        segment.kill(segment.nums[:1])
        (problem,) = store.verify()
        assert problem.startswith("the index holds 19 vectors under other numbers than the 20 records")
        store.rebuild()
        assert store.verify() == []
        (segment,) = store._index.segments
        rows = segment.backend.rows(np.arange(20))
        assert rows is not None
        rows[19] = 1
        other = make_backend(IndexConfig(), DIM, store.metric)
        other.add(rows)
        store._index._segments = [Segment(other, segment.nums)]
        assert store.verify() == ["the index holds another vector than the record in row 20"]
        store.rebuild()
        assert store.verify() == []


def test_an_index_file_of_another_width_is_not_used(saved, make):
    with VectorStore.open(saved) as store:
        table = store._access.table()
        other = make_backend(IndexConfig(), DIM + 1, store.metric)
        other.add(np.ones((20, DIM + 1), np.float32))
        save_segment(saved, table, Segment(other, np.arange(1, 21)), IndexConfig())
    with VectorStore.open(saved) as store:
        assert len(store.search(QUERY, 50)) == 20
        assert isinstance(store._index, SyncedIndex)


def test_the_file_grows_only_now_and_then(saved, make):
    """One more record in 5000 does not make closing write everything again, and is found all the same."""
    with VectorStore.open(saved) as store:
        store.add(make(5000, start=20))
        store.search(QUERY)
    before = index_file(saved).name
    with VectorStore.open(saved) as store:
        new = make(1, start=9000)
        store.add(new)
        assert store.search(new[0].vector, 1)[0].record.id == "r9000"
    assert index_file(saved).name == before
    with VectorStore.open(saved) as store:
        assert store.search(new[0].vector, 1)[0].record.id == "r9000"
        assert store.verify() == []
