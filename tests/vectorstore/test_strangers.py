"""A store's folder may be from a stranger: links, pipes, triggers, views, and rows that no store would write."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.vectorstore.conftest import DIM, ENCODER, random_records
from vectorstore import ForeignDatabase, NewRecord, StoreCorrupt, VectorStore
from vectorstore.table.schema import STATEMENTS

ONES = np.ones(DIM, np.float32)
NEW = NewRecord(kind="k", text="new", vector=ONES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of 400 records with an index file; nobody writes into it."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    with VectorStore.open(folder, encoder=ENCODER, dim=DIM, indexed=("i",)) as store:
        store.add(random_records(np.random.default_rng(7), 400))
        store.rebuild()
    return folder


@pytest.fixture
def copied(whole: Path, folder: Path) -> Path:
    shutil.copytree(whole, folder)
    return folder


def edit(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "records.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def use(folder: Path) -> None:
    """Whatever one does with a store that one was given."""
    with VectorStore.open(folder, readonly=True, mmap=True) as store:
        store.search(ONES, 3)
        list(store.records())
    with VectorStore.open(folder) as store:
        store.add(NEW)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".new"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_files_of_a_store_are_plain_files(copied: Path, tmp_path: Path, suffix: str, kind: str) -> None:
    file, precious = copied / f"records.sqlite{suffix}", tmp_path / "precious"
    precious.write_bytes(file.read_bytes() if file.exists() else b"mine")
    before = precious.read_bytes()
    file.unlink(missing_ok=True)
    if kind == "link":
        file.symlink_to(precious)
    else:
        os.mkfifo(file)
    for call in (use, lambda folder: VectorStore.open(folder, encoder=ENCODER, dim=DIM), VectorStore.repair):
        with pytest.raises(StoreCorrupt, match="it is (a link|no plain file)"):
            call(copied)
    assert precious.read_bytes() == before


def test_an_index_file_that_is_a_link_is_refused(copied: Path, tmp_path: Path) -> None:
    (file,) = copied.glob("index-*")
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreCorrupt, match="it is a link"):
        use(copied)


def test_records_with_another_name_are_read_but_not_written(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "other").hardlink_to(copied / "records.sqlite")
    with VectorStore.open(copied, readonly=True) as store:
        assert len(store.search(ONES, 3)) == 3
    with pytest.raises(StoreCorrupt, match="hard link"):
        VectorStore.open(copied)


def test_the_index_file_is_one_of_the_folder(copied: Path, tmp_path: Path) -> None:
    (file,) = copied.glob("index-*")
    shutil.copy(file, tmp_path / file.name)
    for name in (f"../{file.name}", str(tmp_path / file.name), "records.sqlite"):
        edit(copied, f"UPDATE meta SET value = replace(value, '{file.name}', '{name}') WHERE key = 'index_file'")
        with VectorStore.open(copied, readonly=True) as store:
            assert len(store.search(ONES, 3)) == 3
            assert store.verify() == ["what is noted of the index file is damaged; rebuild() writes it again"]
        edit(copied, f"UPDATE meta SET value = replace(value, '{name}', '{file.name}') WHERE key = 'index_file'")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i"
HOSTILE = {
    "trigger": ["CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records WHERE num < 200; END"],
    "trigger of meta": ["CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM records; END"],
    "view": ["CREATE VIEW v AS SELECT 1"],
    "table": ["CREATE TABLE more (a)"],
    "virtual table": ["CREATE VIRTUAL TABLE more USING fts5(a)"],
    "index": ["CREATE INDEX more ON records (text)"],
    "index under our name": ["CREATE INDEX 'extra:x' ON records (upper(text))"],
    "index that filters": ["CREATE INDEX 'extra:x' ON records (json_extract(extra, '$.\"x\"')) WHERE num > 5"],
    "statistics": ["ANALYZE"],
    "endless view": [
        "ALTER TABLE records RENAME TO hidden",
        f"CREATE VIEW records AS {ENDLESS} AS num, 'i' AS id, 'k' AS kind, '' AS owner, 't' AS text, zeroblob(32) AS "
        "vector, '' AS created, '{}' AS extra, 0 AS text_crc, 0 AS vector_crc FROM n",
    ],
    "endless meta": ["ALTER TABLE meta RENAME TO hidden", f"CREATE VIEW meta AS {ENDLESS} AS key, 'x' AS value FROM n"],
    "huge column": [
        "ALTER TABLE records ADD COLUMN huge BLOB AS (zeroblob(900000000)) VIRTUAL",
    ],
    "other type": ["ALTER TABLE records RENAME COLUMN owner TO owners"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_no_store_holds_is_refused_and_repair_leaves_it_behind(copied: Path, name: str) -> None:
    edit(copied, *HOSTILE[name])
    before = (copied / "records.sqlite").read_bytes()
    with pytest.raises((StoreCorrupt, ForeignDatabase), match="no store has|has no|damaged"):
        use(copied)
    assert (copied / "records.sqlite").read_bytes() == before
    report = VectorStore.repair(copied)
    assert (report.records, report.lost) == (400, 0)
    with VectorStore.open(copied) as store:
        store.add(NEW)
        assert len(store) == 401 and store.verify() == []


BAD_ROWS = {
    "no vector": "vector = NULL",
    "text for a vector": "vector = 'abc'",
    "number for a text": "text = 5",
    "bytes for a text": "text = x'ff'",
    "text that is not UTF-8": "text = CAST(x'ff' AS TEXT)",
    "deep JSON": f"extra = '{'[' * 100_000}{']' * 100_000}'",
    "another text": "text = 'text 1000'",
    "another vector": "vector = zeroblob(31) || x'40'",
    "another owner": "owner = 'Eve'",
    "another time": "created = '1970'",
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_told_and_the_others_are_saved(copied: Path, name: str) -> None:
    """Tables are made anew without their constraints, as a damaged or hostile file may have them."""
    edit(
        copied,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'records'",
    )
    edit(copied, "DROP INDEX 'extra:i'", f"UPDATE records SET {BAD_ROWS[name]} WHERE num = 7")
    restore(copied)
    with VectorStore.open(copied, readonly=True) as store:
        with pytest.raises(StoreCorrupt, match="row 7|damaged"):
            store.get("r6")
        problems = store.verify()
        assert any("row 7 " in problem for problem in problems), problems
        assert not any(f"row {num} " in problem for problem in problems for num in (6, 8))
    report = VectorStore.repair(copied)
    assert (report.records, report.lost) == (399, 1)
    with VectorStore.open(copied) as store:
        assert store.verify() == [] and len(store) == 399
        assert len(store.search(ONES, 3)) == 3


def restore(folder: Path) -> None:
    """The tables as every store has them."""
    (sql,) = (statement for statement in STATEMENTS if statement.startswith("CREATE TABLE records"))
    with closing(sqlite3.connect(folder / "records.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'records'", (sql,))


@pytest.mark.parametrize("key", ["dim", "metric", "encoder", "identity", "schema_version"])
@pytest.mark.parametrize("value", ["", "0", "9", "wide", "[" * 5000])
def test_a_damaged_meta_table_loses_no_row(copied: Path, key: str, value: str) -> None:
    if key == "schema_version" and value == "9":
        return  # a newer one
    edit(copied, f"UPDATE meta SET value = '{value}' WHERE key = '{key}'")
    with pytest.raises(StoreCorrupt, match="damaged|meta table|schema version 0"):
        use(copied)
    report = VectorStore.repair(copied)
    assert (report.records, report.lost) == (400, 0)
    with VectorStore.open(copied, encoder=ENCODER, dim=DIM) as store:
        assert store.verify() == [] and len(store.search(ONES, 3)) == 3


@pytest.mark.parametrize("value", ["", "0", "wide", "[" * 5000, '{"kind": "ivf"}'])
def test_a_damaged_configuration_of_the_index_is_told_and_left_behind(copied: Path, value: str) -> None:
    edit(copied, f"INSERT OR REPLACE INTO meta VALUES ('index_config', '{value}')")
    with VectorStore.open(copied, readonly=True) as store:
        assert "the index configuration is damaged" in store.verify()[-1]
    assert VectorStore.repair(copied).records == 400
    with VectorStore.open(copied) as store:
        assert store.verify() == [] and len(store.search(ONES, 3)) == 3
