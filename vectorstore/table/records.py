"""The rows of a store, the truth from which an index is built.

Rows are never changed, only added and deleted, and their integer `num` is never used twice; keeping an index in step
and rows in memory relies on both. Every write sets a new random `revision`: equal revisions mean equal contents, even
after a backup was put back, which a counter would not show.
"""

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from vectorstore.checks import Columns
from vectorstore.errors import DuplicateId, RecordNotFound, StoreCorrupt
from vectorstore.filters import EVERYTHING, Condition, field_sql
from vectorstore.table.checksums import row_problem, text_checksum, vector_checksum, vector_problem
from vectorstore.table.database import open_database, transaction, translated
from vectorstore.table.schema import FIELD_INDEX, field_index
from vectorstore.types import Metric, Record, Row

COLUMNS = "num, id, kind, owner, text, vector, created, extra, text_crc, vector_crc"
_REMEDY = "repair() saves all other rows, or restore it from a copy"
BATCH = 500  # rows per fetch; also below the number of variables that any SQLite allows in one statement
_INSERT = f"INSERT INTO records ({COLUMNS.removeprefix('num, ')}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@final
class RecordTable:
    """The rows of one store. Call its methods inside `transaction`, except `close`.

    Attributes:
        file: the SQLite file.
        meta: what was fixed when the store was created.
    """

    def __init__(self, file: Path, *, encoder: str | None, dim: int | None, metric: Metric, readonly: bool) -> None:
        """Open or create the file; arguments and errors as `vectorstore.table.database.open_database`."""
        self._connection, self.meta = open_database(file, encoder=encoder, dim=dim, metric=metric, readonly=readonly)
        self.file = file

    def close(self) -> None:
        """Close the connection."""
        with translated(self.file):
            self._connection.close()

    def transaction(self, *, write: bool = False) -> AbstractContextManager[None]:
        """One transaction: a consistent view, and with `write` the write lock; rolled back if the body raises.

        Raises:
            StoreLocked: the write lock was not free within the busy timeout.
        """
        return transaction(self._connection, self.file, write=write)

    def vacuum(self) -> None:
        """Give the space of deleted rows back to the file system; outside of a transaction."""
        with translated(self.file):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def revision(self) -> str:
        """Return the mark of the present contents."""
        value = self.value("revision")
        if value is None:
            raise StoreCorrupt(f"{self.file}: the meta table lacks 'revision'; restore it from a copy")
        return value

    def value(self, key: str) -> str | None:
        """Return what the meta table says under a key, or None."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def set_value(self, key: str, value: str) -> None:
        """Write into the meta table; the revision stays, since no row changes."""
        self._connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def index_fields(self, names: Iterable[str]) -> None:
        """Have SQLite index these fields of `extra`, so that asking for one value reads only the rows that have it."""
        for name in names:
            self._connection.execute(field_index(name).replace("INDEX", "INDEX IF NOT EXISTS", 1))

    def indexed_fields(self) -> list[str]:
        """Return the fields of `extra` that SQLite indexes."""
        rows = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name")
        return [row[0].removeprefix(FIELD_INDEX) for row in rows if row[0].startswith(FIELD_INDEX)]

    def count(self, condition: Condition = EVERYTHING) -> int:
        """Return the number of records, all or those of a condition."""
        query = f"SELECT count(*) FROM records WHERE {condition.sql}"
        return self._connection.execute(query, condition.values).fetchone()[0]

    def groups(self) -> list[tuple[str, str, int]]:
        """Return (owner, kind, number of records) for every owner and kind."""
        return self._connection.execute("SELECT owner, kind, count(*) FROM records GROUP BY owner, kind").fetchall()

    def insert(self, columns: Columns) -> None:
        """Add rows in order.

        Raises:
            DuplicateId: an id is taken; the transaction must be rolled back.
        """
        last = self.last()
        data, width = np.ascontiguousarray(columns.vectors, "<f4").tobytes(), 4 * self.meta.dim
        blobs = [data[start : start + width] for start in range(0, len(data), width)]
        created = [columns.created] * len(columns.ids) if isinstance(columns.created, str) else columns.created
        names = (columns.ids, columns.kinds, columns.owners, columns.texts)
        text_crcs = map(text_checksum, zip(*names, created, columns.extras, strict=True))
        values = (*names, blobs, created, columns.extras, text_crcs, map(vector_checksum, blobs))
        try:
            self._connection.executemany(_INSERT, zip(*values, strict=True))
        except sqlite3.IntegrityError as error:
            raise DuplicateId(
                f"id {self._duplicate(columns.ids, last)!r} is in the store or twice in this call; nothing was "
                "written. Give another id, or None for a random one"
            ) from error
        self._touch()

    def delete(self, nums: Sequence[int]) -> None:
        """Delete the rows of these numbers."""
        if nums:
            self._connection.executemany("DELETE FROM records WHERE num = ?", ((num,) for num in nums))
            self._touch()

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of these ids, in their order.

        Raises:
            RecordNotFound: no record has one of the ids.
        """
        found = self._by_id(ids)
        for id in ids:
            if id not in found:
                raise RecordNotFound(f"no record has the id {id!r}; records() lists what is there")
        return [found[id] for id in ids]

    def find(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those of the ids that exist, in their order."""
        found = self._by_id(ids)
        return [found[id] for id in ids if id in found]

    def _by_id(self, ids: Sequence[str]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for part, marks in _parts(ids):
            query = f"SELECT {COLUMNS} FROM records WHERE id IN ({marks})"
            rows = self._connection.execute(query, part)
            found.update((row[1], Record(self.checked(row), self.meta.encoder)) for row in rows)
        return found

    def nums_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the row numbers of those of the ids that exist."""
        found: dict[str, int] = {}
        for part, marks in _parts(ids):
            found.update(self._connection.execute(f"SELECT id, num FROM records WHERE id IN ({marks})", part))
        return found

    def page(self, after: int, condition: Condition) -> list[Row]:
        """Return the next rows with `num > after` of a condition, in insertion order; empty at the end."""
        query = f"SELECT {COLUMNS} FROM records WHERE {condition.sql} AND num > ? ORDER BY num LIMIT {BATCH}"
        return [self.checked(row) for row in self._connection.execute(query, (*condition.values, after))]

    def fetch(self, nums: Sequence[int]) -> list[Row]:
        """Return the rows of these numbers, those that exist, in any order."""
        rows: list[Row] = []
        for part, marks in _parts(nums):
            rows += self._connection.execute(f"SELECT {COLUMNS} FROM records WHERE num IN ({marks})", part).fetchall()
        return [self.checked(row) for row in rows]

    def nums(
        self,
        condition: Condition = EVERYTHING,
        *,
        after: int = 0,
        order_by: str | None = None,
        descending: bool = False,
    ) -> NDArray[np.int64]:
        """Return the row numbers `[n]` above `after` of a condition, ascending, or by a field of `extra`."""
        direction = " DESC" if descending else ""
        order = f"num{direction}" if order_by is None else f"{field_sql(order_by)}{direction}, num"
        query = f"SELECT num FROM records WHERE {condition.sql} AND num > ? ORDER BY {order}"
        rows = self._connection.execute(query, (*condition.values, after))
        return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def vectors(self, after: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield row numbers `[n]` and vectors `[n, dim]` of the rows with `num > after`, in batches, ascending."""
        query = "SELECT num, vector, vector_crc FROM records WHERE num > ? ORDER BY num"
        cursor, dim = self._connection.execute(query, (after,)), self.meta.dim
        while rows := cursor.fetchmany(8 * BATCH):
            nums, blobs, _ = zip(*rows, strict=True)
            for num, blob, checksum in rows:
                if (problem := vector_problem(blob, checksum, dim)) is not None:
                    raise StoreCorrupt(f"{self.file}: row {num} {problem}; {_REMEDY}")
            yield np.array(nums, np.int64), vectors_of(blobs, self.meta.dim)

    def statement(self, sql: str) -> Iterator[tuple]:
        """Iterate over the rows of a query of the checks and statistics."""
        return self._connection.execute(sql)

    def checked(self, row: Row) -> Row:
        """Return a row after a look at what SQLite's types do not promise.

        Raises:
            StoreCorrupt: it is not as it was written, or its `extra` is not JSON.
        """
        problem = row_problem(row, self.meta.dim)
        if problem is None and row[7] != "{}":
            try:
                json.loads(row[7])
            except (ValueError, RecursionError) as error:
                problem = f"has an extra that is not JSON ({error})"
        if problem is not None:
            raise StoreCorrupt(f"{self.file}: row {row[0]} (id {row[1]!r}) {problem}; {_REMEDY}")
        return row

    def _touch(self) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE key = 'revision'", (uuid.uuid4().hex,))

    def last(self) -> int:
        """Return the number of the newest row; 0 if there is none."""
        return self._connection.execute("SELECT coalesce(max(num), 0) FROM records").fetchone()[0]

    def _duplicate(self, ids: Sequence[str], last: int) -> str:
        seen: set[str] = set()
        stored = self.nums_of(ids)
        for id in ids:
            if id in seen or stored.get(id, last + 1) <= last:
                return id
            seen.add(id)
        return ids[-1]


def vectors_of(blobs: Iterable[bytes], dim: int) -> NDArray[np.float32]:
    """Return the vectors `[n, dim]` of rows' bytes."""
    return np.frombuffer(b"".join(blobs), "<f4").astype(np.float32, copy=False).reshape(-1, dim)


def _parts(values: Sequence[Any]) -> Iterator[tuple[list[Any], str]]:
    """Lists of values to be bound, and their question marks; few lengths, so that SQLite's statements are reused."""
    for start in range(0, len(values), BATCH):
        part = list(values[start : start + BATCH])
        size = min(BATCH, 1 << (len(part) - 1).bit_length())
        yield part + part[-1:] * (size - len(part)), ", ".join("?" * size)
