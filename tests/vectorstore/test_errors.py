"""What is refused, and that the messages help."""

import shutil
import sqlite3
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from vectorstore import (
    DimensionMismatch,
    EncoderMismatch,
    ForeignDatabase,
    InvalidArgument,
    InvalidRecord,
    InvalidVector,
    Metric,
    MetricMismatch,
    NewerSchema,
    NewRecord,
    StorageFailure,
    StoreClosed,
    StoreCorrupt,
    StoreLocked,
    StoreNotFound,
    StoreReadOnly,
    VectorStore,
)
from vectorstore.table import database
from vectorstore.table.schema import SCHEMA_VERSION

DIM = 8
ENCODER = "test-encoder@1"
ONES = np.ones(DIM, np.float32)
NEW = NewRecord(kind="k", text="t", vector=ONES)
WAYS_TO_OPEN: list[dict[str, Any]] = [{}, {"encoder": "e", "dim": 3}, {"readonly": True}]


@pytest.mark.parametrize(
    ("vector", "error", "match"),
    [
        (["1.0"] * DIM, InvalidVector, "is a list; expected an array or a list of numbers"),
        ([[1.0] * DIM, [1.0]], InvalidVector, "is a list; .*all rows of one length"),
        (None, InvalidVector, "is a NoneType; expected an array"),
        (np.ones(DIM, bool), InvalidVector, "dtype bool"),
        (np.full(DIM, 1e300), InvalidVector, "NaN or infinity"),
        (np.ones((1, 1, DIM), np.float32), InvalidVector, r"shape \[1, 1, 8\]"),
        (np.float32(1) * np.ones((), np.float32), InvalidVector, "expected"),
        (np.ones(DIM + 1, np.float32), DimensionMismatch, "width 9; this store holds width 8"),
        (np.ones(0, np.float32), DimensionMismatch, "width 0"),
        (np.where(np.arange(DIM) == 3, np.nan, ONES).astype(np.float32), InvalidVector, "NaN or infinity"),
        (ONES * np.float32("inf"), InvalidVector, "NaN or infinity"),
        (0 * ONES, InvalidVector, "all zeros"),
    ],
)
def test_a_vector_that_does_not_belong_is_refused_by_add_and_search(store, make, vector, error, match):
    store.add(make(1))
    with pytest.raises(error, match=match):
        store.search(vector)
    with pytest.raises(error, match=match):
        store.add(NewRecord(kind="k", text="t", vector=vector))
    assert len(store) == 1


def test_one_bad_row_spoils_a_matrix_of_queries_and_a_record_is_one_vector(store, make):
    store.add(make(1))
    with pytest.raises(InvalidVector, match="all zeros"):
        store.search(np.stack([ONES, 0 * ONES]))
    with pytest.raises(InvalidVector, match=r"record 1 \(id 'x'\) has shape \[2, 8\]; expected \[8\]"):
        store.add([NEW, NewRecord(id="x", kind="k", text="t", vector=np.stack([ONES, ONES]))])


def test_l2_takes_the_zero_vector_but_none_whose_distances_overflow(folder):
    with VectorStore.open(folder, encoder="e", dim=DIM, metric=Metric.L2) as store:
        store.add(NewRecord(kind="k", text="t", vector=0 * ONES))
        assert store.search(0 * ONES)[0].score == 0
        with pytest.raises(InvalidVector, match="rescale"):
            store.search(ONES * np.float32(1e19))


@pytest.mark.parametrize("k", [0, -1, 1.0, "3", None])
def test_k_must_be_a_positive_integer(store, make, k):
    store.add(make(1))
    with pytest.raises(InvalidArgument, match="^k is .*expected"):
        store.search(ONES, k)


def test_filters_must_be_strings(store, make):
    store.add(make(1))
    with pytest.raises(InvalidArgument, match="one of owner is 3"):
        store.search(ONES, owner=["Ada", 3])
    with pytest.raises(InvalidArgument, match="owner is .*dict.*expected a string, a collection"):
        store.search(ONES, owner={"Ada": 1})
    with pytest.raises(InvalidArgument, match="kind is 3"):
        store.records(kind=3)


@pytest.mark.parametrize(("id", "match"), [(5, "id is 5"), (None, "expected a string$"), ("\ud800", "not valid text")])
def test_an_id_must_be_text(store, id, match):
    for use in (store.get, store.delete):
        with pytest.raises(InvalidArgument, match=match):
            use(id)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("kind", "", "kind is empty"),
        ("kind", None, "kind is None"),
        ("id", "", "id is empty"),
        ("id", 5, r"id is 5 \(int\); expected a string"),
        ("owner", None, "owner is None"),
        ("text", b"bytes", "bytes"),
        ("text", "\ud800", "surrogates"),
        ("encoder", 3, "encoder is 3"),
        ("extra", [], "extra is a list; expected a dict"),
        ("extra", {"a": (1, 2)}, "lists for tuples"),
        ("extra", {1: 2}, "string keys"),
        ("extra", {"a": float("nan")}, "not JSON"),
        ("extra", {"a": np.float32(1)}, "not JSON"),
    ],
)
def test_a_field_that_cannot_be_stored_unaltered_is_refused_at_construction(field, value, match):
    fields = {"kind": "k", "text": "t", "vector": ONES}
    with pytest.raises(InvalidRecord, match=match):
        NewRecord(**{**fields, field: value})


def test_only_new_records_are_added(store):
    with pytest.raises(InvalidRecord, match="record 1 is a dict; expected a NewRecord"):
        store.add([NEW, {"kind": "k"}])
    changed = NewRecord(kind="k", text="t", vector=ONES)
    changed.extra["late"] = {1, 2}
    with pytest.raises(InvalidRecord, match="not JSON"):
        store.add([NEW, changed])
    assert len(store) == 0


def test_identity_width_and_metric_are_fixed_at_creation(store, folder):
    store.close()
    with pytest.raises(EncoderMismatch, match="'test-encoder@1', not of 'other'"):
        VectorStore.open(folder, encoder="other", dim=DIM)
    with pytest.raises(DimensionMismatch, match="width 8; dim=9"):
        VectorStore.open(folder, encoder=ENCODER, dim=9)
    with pytest.raises(MetricMismatch, match="metric cosine; l2"):
        VectorStore.open(folder, metric=Metric.L2)
    with VectorStore.open(folder) as again:
        assert (again.encoder, again.dim, again.metric) == (ENCODER, DIM, Metric.COSINE)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"encoder": "", "dim": 3}, "encoder is empty"),
        ({"encoder": "e", "dim": 0}, "dim is 0; expected at least 1"),
        ({"encoder": "e", "dim": 2.5}, "dim is 2.5"),
        ({"encoder": "e", "dim": 3, "metric": "dot"}, "metric is 'dot'; expected one of cosine, l2"),
    ],
)
def test_senseless_options_create_nothing(folder, options, match):
    with pytest.raises(InvalidArgument, match=match):
        VectorStore.open(folder, **options)
    assert not folder.exists()


@pytest.mark.parametrize("options", [{}, {"encoder": "e"}, {"dim": 3}, {"encoder": "e", "dim": 3, "readonly": True}])
def test_a_store_that_is_not_there_is_not_made_by_accident(folder, options):
    with pytest.raises(StoreNotFound, match="no store at"):
        VectorStore.open(folder, **options)
    assert not folder.exists()
    folder.mkdir(parents=True)
    (folder / "records.sqlite").touch()  # what a creation that was cut off at once leaves
    with pytest.raises(StoreNotFound, match="no store at"):
        VectorStore.open(folder, **options)
    VectorStore.open(folder, encoder="e", dim=3).close()


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailure, match="expected a folder"):
        VectorStore.open(tmp_path / "file", encoder="e", dim=3)


def test_a_read_only_store_refuses_writes_and_leaves_the_folder_as_it_was(store, folder, make):
    store.add(make(3))
    store.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with VectorStore.open(folder, readonly=True) as reader:
        assert len(reader.search(ONES)) == 3
        reader.rebuild()
        for write in (lambda: reader.add(NEW), lambda: reader.add([]), lambda: reader.delete("r0")):
            with pytest.raises(StoreReadOnly, match="readonly=True"):
                write()
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"records.sqlite-wal", "records.sqlite-shm"}
    assert after.get("records.sqlite-wal", b"") == b""


@pytest.mark.parametrize(
    "content", [b"not a database, but longer than the header of one " * 40, b"SQLite format 3\x00" + bytes(4000)]
)
def test_what_is_no_sqlite_file_is_refused_and_left_alone(folder, content):
    folder.mkdir(parents=True)
    file = folder / "records.sqlite"
    file.write_bytes(content)
    for options in WAYS_TO_OPEN:
        with pytest.raises(StoreCorrupt, match="restore it from a copy"):
            VectorStore.open(folder, **options)
    assert file.read_bytes() == content


def test_a_damaged_file_is_an_error_and_never_a_wrong_answer(store, folder, make):
    store.add(make(2000))
    store.close()
    file = folder / "records.sqlite"
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 60] = bytes([0x5A]) * (4096 * 57)
    file.write_bytes(content)
    with VectorStore.open(folder) as damaged:
        assert damaged.verify()
        with pytest.raises(StoreCorrupt, match="damaged"):
            damaged.search(ONES)
        with pytest.raises(StoreCorrupt, match="damaged"):
            list(damaged.records())


def test_damaged_rows_are_named(store, folder, make):
    store.add(make(3))
    store.close()
    for change, match in [
        ("UPDATE records SET extra = '{' WHERE num = 2", "row 2 .*the checksum of its text does not match"),
        ("UPDATE records SET vector = x'00' WHERE num = 2", "row 2 .*has 1 vector bytes; expected 32"),
        ("DROP TABLE records", "it has no records"),
        ("DELETE FROM meta WHERE key = 'revision'", "lacks 'revision'"),
        ("UPDATE meta SET value = 'wide' WHERE key = 'dim'", "meta table is damaged"),
        ("DELETE FROM meta WHERE key = 'encoder'", "lacks 'encoder'"),
    ]:
        copy = folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        edit(copy, change)
        with pytest.raises(StoreCorrupt, match=match), VectorStore.open(copy) as damaged:
            damaged.get("r1")
            damaged.search(ONES)


def edit(folder, statement):
    with closing(sqlite3.connect(folder / "records.sqlite")) as connection, connection:
        connection.execute(statement)


def test_the_database_of_another_program_is_refused_and_left_alone(folder):
    folder.mkdir(parents=True)
    edit(folder, "CREATE TABLE meta (key TEXT, value TEXT)")
    before = (folder / "records.sqlite").read_bytes()
    for options in WAYS_TO_OPEN:
        with pytest.raises(ForeignDatabase, match="of another program"):
            VectorStore.open(folder, **options)
    assert (folder / "records.sqlite").read_bytes() == before


def test_a_newer_schema_is_refused(store, folder):
    store.close()
    edit(folder, f"UPDATE meta SET value = '{SCHEMA_VERSION + 1}' WHERE key = 'schema_version'")
    with pytest.raises(NewerSchema, match="schema version 3; this package knows 2, upgrade it"):
        VectorStore.open(folder)
    edit(folder, "UPDATE meta SET value = 'a metric of later days' WHERE key = 'metric'")
    with pytest.raises(NewerSchema, match="upgrade it"):
        VectorStore.open(folder, readonly=True)


def test_a_writer_waits_for_another_only_so_long_and_readers_do_not_wait(store, folder, make, monkeypatch):
    store.add(make(2))
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    with VectorStore.open(folder) as other, closing(sqlite3.connect(folder / "records.sqlite")) as holder:
        holder.execute("BEGIN IMMEDIATE")
        for write in (lambda: other.add(NEW), lambda: other.delete("r0")):
            with pytest.raises(StoreLocked, match="locked by another writer.*readonly=True"):
                write()
        assert len(other.search(ONES)) == 2
        holder.execute("ROLLBACK")
        other.add(NEW)
        assert len(store) == 3


def test_every_use_after_close_says_so(store, make):
    store.add(make(1))
    pages = store.records()
    store.close()
    uses = [
        lambda: store.add(NEW),
        lambda: store.add([]),
        lambda: store.search(ONES),
        lambda: store.get("r0"),
        lambda: store.records(),
        lambda: next(pages),
        lambda: store.delete("r0"),
        lambda: len(store),
        lambda: store.verify(),
        lambda: store.rebuild(),
        lambda: store.__enter__(),
    ]
    for use in uses:
        with pytest.raises(StoreClosed, match="is closed; open it again"):
            use()
