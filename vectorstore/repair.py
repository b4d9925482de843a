"""Mending a damaged store: what can be read of the records is written into a new file, and the index is rebuilt."""

import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from vectorstore.checks import check_vectors
from vectorstore.errors import StoreCorrupt, StoreNotFound
from vectorstore.index.sync import CONFIG_KEY, SyncedIndex
from vectorstore.inspection import find_problems, row_problems
from vectorstore.table.database import RECORDS_FILE, open_database, transaction, translated
from vectorstore.table.records import COLUMNS, FIELD_INDEX, RecordTable
from vectorstore.types import Metric, Row, StoreMeta

logger = logging.getLogger(__name__)

_SPAN = 4096  # row numbers read at once; where that fails the span is halved, down to single rows


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairReport:
    """What was wrong, and what survived.

    Attributes:
        problems: what `verify` found before, one line each.
        records: how many records there are now.
        lost: how many row numbers could not be read; None if the records were whole.
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
        lost = "at least one row number" if not self.lost else f"{self.lost} row numbers"
        return f"{self.records} records were saved, {lost} could not be read; the old file is {self.damaged.name}"


def repair_folder(folder: Path) -> RepairReport:
    """Mend the store in `folder`, which no process may have open.

    An index that does not fit the records is rebuilt. Where the records themselves are damaged, every row that can
    still be read and is whole goes into a new file, ids, times and order kept; the old one stays beside it, as
    `records.sqlite.damaged`.

    Raises:
        StoreNotFound: no store is there.
        StoreLocked: another process is writing.
        ForeignDatabase, NewerSchema: the file is not of this package, or of a later one.
        StoreCorrupt: nothing can be saved, not even which encoder the vectors are of; the file is left as it is.
        StorageFailure: the file system refused.
    """
    file = folder / RECORDS_FILE
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
                if row_problems(table):
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
    with closing(sqlite3.connect(file, isolation_level=None)) as source:
        source.execute("PRAGMA writable_schema = ON")  # lets SQLite read a file that is shorter than it says
        meta, kept = _read_meta(source, file)
        names = source.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
        target, _ = open_database(new, encoder=meta.encoder, dim=meta.dim, metric=meta.metric, readonly=False)
        with closing(target):
            rows = _Rows(source, meta, file.stat().st_size)
            marks = ", ".join("?" * len(COLUMNS.split(", ")))
            with transaction(target, new, write=True):
                target.executemany(f"INSERT OR IGNORE INTO records ({COLUMNS}) VALUES ({marks})", rows)
                target.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", kept)
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = _free_name(file)
    with translated(file):
        shutil.copy2(file, damaged)
        # The log belongs to the damaged file: left in place it would be applied to the new one.
        for suffix in ("-wal", "-shm"):
            log = file.with_name(file.name + suffix)
            if log.exists():
                os.replace(log, damaged.with_name(damaged.name + suffix))
        os.replace(new, file)
    logger.warning("%s was damaged: %d rows saved, %d lost; the old file is %s", file, rows.saved, rows.lost, damaged)
    fields = [name.removeprefix(FIELD_INDEX) for (name,) in names if name.startswith(FIELD_INDEX)]
    return damaged, rows.lost, fields


@final
class _Rows:
    """Iterates over the rows of a damaged file that can be read and are whole.

    Attributes:
        saved, lost: how many so far.
    """

    def __init__(self, source: sqlite3.Connection, meta: StoreMeta, size: int) -> None:
        self._source = source
        self._meta = meta
        self._known = self._numbers()
        # Without a number that can be read: no more rows than their vectors would fill the file, tenfold for gaps.
        self._last = max(self._known, default=10 * size // (4 * meta.dim) + _SPAN)
        self.saved = 0
        self.lost = 0

    def __iter__(self) -> Iterator[Row]:
        failed = 0
        seen: set[int] = set()
        spans = [(start, start + _SPAN) for start in range(self._last // _SPAN * _SPAN, -1, -_SPAN)]
        while spans:
            start, end = spans.pop()
            query = f"SELECT {COLUMNS} FROM records WHERE num >= ? AND num < ? ORDER BY num"
            try:
                rows = self._source.execute(query, (start, end)).fetchall()
            except sqlite3.Error:
                middle = (start + end) // 2
                if end - start > 1:
                    spans += [(middle, end), (start, middle)]
                else:
                    failed += 1
                continue
            for row in rows:
                if self._is_whole(row):
                    seen.add(row[0])
                    yield row
                else:
                    failed += 1
        self.saved = len(seen)
        self.lost = len(self._known - seen) if self._known else failed

    def _numbers(self) -> set[int]:
        """The row numbers in the index over owners and kinds, which lies on other pages than the rows."""
        try:
            rows = self._source.execute("SELECT num FROM records INDEXED BY records_owner_kind")
            return {row[0] for row in rows}
        except sqlite3.Error:
            return set()

    def _is_whole(self, row: Row) -> bool:
        texts = (*row[1:5], row[6], row[7])
        if not all(isinstance(text, str) for text in texts) or not isinstance(row[5], bytes):
            return False
        try:
            json.loads(row[7])
            vector = np.frombuffer(row[5], "<f4").astype(np.float32)
            check_vectors(vector, ndim=1, dim=self._meta.dim, metric=self._meta.metric, what="")
        except ValueError:
            return False
        return True


def _read_meta(source: sqlite3.Connection, file: Path) -> tuple[StoreMeta, list[tuple[str, str]]]:
    try:
        values = dict(source.execute("SELECT key, value FROM meta"))
        meta = StoreMeta(values["encoder"], int(values["dim"]), Metric(values["metric"]))
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise StoreCorrupt(
            f"{file}: not even its meta table can be read ({error}), so nothing can be saved; restore it from a copy"
        ) from error
    return meta, [(key, value) for key, value in values.items() if key == CONFIG_KEY]


def _free_name(file: Path) -> Path:
    names = [file.with_name(f"{file.name}.damaged{suffix}") for suffix in ("", *(f".{i}" for i in range(2, 100)))]
    return next(name for name in names if not name.exists())


def _remove(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
