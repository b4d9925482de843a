"""Mending a damaged store: what can be read of the records is written into a new file, and the index is rebuilt."""

import json
import logging
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, final

import numpy as np

from vectorstore.checks import check_vectors
from vectorstore.errors import StoreCorrupt, StoreNotFound
from vectorstore.files import RECORDS_FILE, check_files
from vectorstore.index.config import IndexConfig
from vectorstore.index.sync import CONFIG_KEY, SyncedIndex
from vectorstore.inspection import find_problems, row_problems
from vectorstore.pages import keyed_rows, table_rows
from vectorstore.table.checksums import row_problem, vector_checksum
from vectorstore.table.database import open_database, transaction, translated
from vectorstore.table.records import COLUMNS, RecordTable
from vectorstore.table.schema import FIELD_INDEX, field_index, is_ours, likeliest_identity, secure
from vectorstore.types import Metric, Row, StoreMeta

logger = logging.getLogger(__name__)

_SAMPLE = 1000  # rows whose vectors tell the width that all have


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairReport:
    """What was wrong, and what survived.

    Attributes:
        problems: what `verify` found before, one line each.
        records: how many records there are now.
        lost: how many row numbers are known whose records could not be read; None if the records were whole.
        damaged: where the old file went; None if the records were whole.
    """

    problems: tuple[str, ...]
    records: int
    lost: int | None
    damaged: Path | None

    def __str__(self) -> str:
        """Say it in a sentence."""
        if not self.problems:
            return f"nothing was wrong; {self.records} records"
        if self.damaged is None:
            return f"the index was rebuilt; all {self.records} records were whole"
        lost = f"{self.lost} could not be read" if self.lost else "none is known to be lost"
        return f"{self.records} records were saved, {lost}; the old file is {self.damaged.name}"


def repair_folder(folder: Path) -> RepairReport:
    """Mend the store in `folder`, which no process may have open.

    An index that does not fit the records is rebuilt. Where the records themselves are damaged, every row that can
    still be read and is whole goes into a new file, ids, times and order kept; the old one stays beside it, as
    `records.sqlite.damaged`.

    Raises:
        StoreNotFound: no store is there.
        StoreLocked: another process is writing.
        ForeignDatabase, NewerSchema: the file is not of this package, or of a later one.
        StoreCorrupt: nothing can be saved, not even which encoder the vectors are of, or a link lies in the place of a
            file; all is left as it is.
        StorageFailure: the file system refused.
    """
    file = folder / RECORDS_FILE
    check_files(folder, written=True)
    if not file.is_file():
        raise StoreNotFound(f"no store at {folder}; there is nothing to repair")
    try:
        problems, whole = _mend_index(file)
    except StoreCorrupt as error:
        problems, whole = [str(error)], False
    damaged = lost = None
    if not whole:
        damaged, lost, fields = _salvage(file)
        with closing(_open(file)) as table, table.transaction(write=True):
            table.index_fields(fields)
        _mend_index(file)
    with closing(_open(file)) as table, table.transaction():
        count = table.count()
    return RepairReport(problems=tuple(problems), records=count, lost=lost, damaged=damaged)


def _open(file: Path) -> RecordTable:
    return RecordTable(file, encoder=None, dim=None, metric=Metric.COSINE, readonly=False)


def _mend_index(file: Path) -> tuple[list[str], bool]:
    """Return the problems of a store, and whether its records are whole; if so, the index is mended."""
    with closing(_open(file)) as table:
        with table.transaction(write=True):
            pass  # nobody else is writing
        index = SyncedIndex(file.parent, table)
        problems = find_problems(file.parent, table, index)
        if problems:
            with table.transaction():
                if next(row_problems(table), None) is not None:
                    return problems, False
                index.rebuild()
            index.save()
        return problems, True


def _salvage(file: Path) -> tuple[Path, int, list[str]]:
    """Put a new file with the readable rows in the place of a damaged one.

    Returns:
        where the damaged one went, how many row numbers are lost, and which fields of `extra` were indexed.
    """
    new = file.with_name(file.name + ".new")
    _remove(new)
    with closing(_Damaged(file)) as source:
        meta, kept = source.meta()
        target, _ = open_database(new, encoder=meta.encoder, dim=meta.dim, metric=meta.metric, readonly=False)
        with closing(target):
            marks = ", ".join("?" * len(COLUMNS.split(", ")))
            with transaction(target, new, write=True):
                target.executemany(f"INSERT OR IGNORE INTO records ({COLUMNS}) VALUES ({marks})", source.rows(meta))
                target.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", kept)
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        fields, lost = source.fields(), source.lost
    damaged = _free_name(file)
    with translated(file):
        shutil.copy2(file, damaged)
        # The log belongs to the damaged file: left in place it would be applied to the new one.
        for suffix in ("-wal", "-shm"):
            log = file.with_name(file.name + suffix)
            if log.exists():
                os.replace(log, damaged.with_name(damaged.name + suffix))
        os.replace(new, file)
    logger.warning("%s was damaged: %d rows saved, %d lost; the old file is %s", file, source.saved, lost, damaged)
    return damaged, lost, fields


@final
class _Damaged:
    """A damaged file, or one that holds what no store does. No statement of it is run: only tables are read.

    Attributes:
        saved, lost: how many rows, once they were read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._source = sqlite3.connect(file, isolation_level=None)
        self.saved = self.lost = 0
        self._schema: dict[str, tuple[str, str]] = {}
        with suppress(sqlite3.Error, UnicodeDecodeError):
            secure(self._source)
            self._source.execute("PRAGMA writable_schema = ON")  # lets SQLite read a file that is shorter than it says
            listed = self._source.execute("SELECT name, type, sql FROM sqlite_master")
            self._schema = {name: (kind, sql) for name, kind, sql in listed}

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def fields(self) -> list[str]:
        """Return the fields of `extra` that were indexed."""
        names = [name.removeprefix(FIELD_INDEX) for name in self._schema if name.startswith(FIELD_INDEX)]
        return [name for name in names if self._schema[FIELD_INDEX + name] == ("index", field_index(name))]

    def meta(self) -> tuple[StoreMeta, list[tuple[str, str]]]:
        """Return what was fixed when the store was created, and the rows of the meta table that are to be kept.

        Raises:
            StoreCorrupt: that cannot be told.
        """
        values: dict[str, Any] = {}
        if is_ours("meta", self._schema):
            with suppress(sqlite3.Error):
                values = dict(self._source.execute("SELECT key, value FROM meta"))
        if not values:
            pairs = (row for row in keyed_rows(self._file) if len(row) == 2)
            values = {key: value for key, value in pairs if isinstance(key, str) and isinstance(value, str)}
        widths = Counter(len(row[5]) for row in islice(self._leaves(), _SAMPLE))
        dim = widths.most_common(1)[0][0] // 4 if widths else None
        try:
            meta = likeliest_identity(values, dim)
        except (KeyError, ValueError, TypeError) as error:
            raise StoreCorrupt(
                f"{self._file}: not even its meta table can be read ({error}), so nothing can be saved; restore it "
                "from a copy"
            ) from error
        return meta, [(key, value) for key, value in values.items() if key == CONFIG_KEY and _is_config(value)]

    def rows(self, meta: StoreMeta) -> Iterator[Row]:
        """Yield all rows that are whole: those that SQLite finds, from either end, then those that are left in pages.

        Rows that were deleted must not come back: where it can be told which row numbers there are, these alone count.
        """
        known, complete = self._numbers()
        seen: set[int] = set()
        for row in chain(self._found(""), self._found("DESC"), self._leaves()):
            if row[0] not in seen and (not complete or row[0] in known) and _is_whole(row, meta):
                seen.add(row[0])
                yield row
        self.saved, self.lost = len(seen), len(known - seen)

    def _found(self, direction: str) -> Iterator[Row]:
        if is_ours("records", self._schema):
            with suppress(sqlite3.Error):
                yield from self._source.execute(f"SELECT {COLUMNS} FROM records ORDER BY num {direction}")

    def _leaves(self) -> Iterator[Any]:
        """Rows that lie in whole pages, whether anything leads to these or not, and have a vector as it was written."""
        for num, columns in table_rows(self._file):
            if len(columns) == 10 and isinstance(columns[5], bytes) and vector_checksum(columns[5]) == columns[9]:
                yield (num, *columns[1:])

    def _numbers(self) -> tuple[set[int], bool]:
        """The row numbers in the indices over ids, owners and kinds, which lie on other pages; if both agree, all."""
        found: list[set[int]] = []
        for name in ("records_owner_kind", "sqlite_autoindex_records_1"):
            if is_ours("records", self._schema) and is_ours(name, self._schema):
                with suppress(sqlite3.Error):
                    rows = self._source.execute(f"SELECT num FROM records INDEXED BY {name}")
                    found.append({row[0] for row in rows})
        if len(found) == 2 and found[0] == found[1]:
            return found[0], True
        return {row[-1] for row in keyed_rows(self._file) if _is_entry(row)}, False


def _is_entry(row: list[Any]) -> bool:
    """Whether a row may be one of an index over ids, or over owners and kinds: texts, and the number of a row."""
    return len(row) in (2, 3) and isinstance(row[-1], int) and all(isinstance(text, str) for text in row[:-1])


def _is_whole(row: Row, meta: StoreMeta) -> bool:
    if row_problem(row, meta.dim) is not None:
        return False
    try:
        json.loads(row[7])
        vector = np.frombuffer(row[5], "<f4").astype(np.float32)
        check_vectors(vector, ndim=1, dim=meta.dim, metric=meta.metric, what="")
    except (ValueError, RecursionError):
        return False
    return True


def _is_config(text: str) -> bool:
    try:
        IndexConfig.parse(text)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _free_name(file: Path) -> Path:
    names = [file.with_name(f"{file.name}.damaged{suffix}") for suffix in ("", *(f".{i}" for i in range(2, 100)))]
    return next(name for name in names if not name.exists())


def _remove(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
