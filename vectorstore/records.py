"""The rows of a store, the truth from which an index is built.

Rows are never changed, only added and deleted, and their integer `num` is never used twice; keeping an index in step
relies on both. Every write sets a new random `revision`: equal revisions mean equal contents, even after a backup was
put back, which a counter would not show.
"""

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from vectorstore.checks import check_vectors
from vectorstore.database import open_database, transaction, translated
from vectorstore.errors import DuplicateId, InvalidVector, RecordNotFound, StoreCorrupt
from vectorstore.types import Metric, Record, dump_extra

_COLUMNS = "num, id, kind, owner, text, vector, created, extra"
_BATCH = 500  # rows per fetch; also below the number of variables that any SQLite allows in one statement


@final
class RecordTable:
    """The rows of one store. Call its methods inside `transaction`, except `close`.

    Attributes:
        file: the SQLite file.
        meta: what was fixed when the store was created.
    """

    def __init__(self, file: Path, *, encoder: str | None, dim: int | None, metric: Metric, readonly: bool) -> None:
        """Open or create the file; arguments and errors as `vectorstore.database.open_database`."""
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

    def revision(self) -> str:
        """Return the mark of the present contents."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        if row is None:
            raise StoreCorrupt(f"{self.file}: the meta table lacks 'revision'; restore it from a copy")
        return row[0]

    def count(self) -> int:
        """Return the number of records."""
        return self._connection.execute("SELECT count(*) FROM records").fetchone()[0]

    def insert(self, records: Iterable[Record]) -> None:
        """Add rows in order.

        Raises:
            DuplicateId: an id is taken; the transaction must be rolled back.
        """
        statement = "INSERT INTO records (id, kind, owner, text, vector, created, extra) VALUES (?, ?, ?, ?, ?, ?, ?)"
        for record in records:
            blob = record.vector.astype("<f4").tobytes()
            row = (record.id, record.kind, record.owner, record.text, blob, record.created, dump_extra(record.extra))
            try:
                self._connection.execute(statement, row)
            except sqlite3.IntegrityError as error:
                raise DuplicateId(
                    f"id {record.id!r} is in the store or twice in this call; nothing was written. "
                    "Give another id, or None for a random one"
                ) from error
        self._touch()

    def delete(self, id: str) -> None:
        """Delete a row.

        Raises:
            RecordNotFound: no record has that id.
        """
        if self._connection.execute("DELETE FROM records WHERE id = ?", (id,)).rowcount == 0:
            raise RecordNotFound(f"no record has the id {id!r}; nothing was deleted")
        self._touch()

    def get(self, id: str) -> Record:
        """Return one record.

        Raises:
            RecordNotFound: no record has that id.
        """
        row = self._connection.execute(f"SELECT {_COLUMNS} FROM records WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise RecordNotFound(f"no record has the id {id!r}; records() lists what is there")
        return self._record(row)

    def page(self, after: int, owner: str | None, kind: str | None) -> list[tuple[int, Record]]:
        """Return the next rows with `num > after`, in insertion order, as (num, record); empty at the end."""
        where, values = _where(owner, kind)
        query = f"SELECT {_COLUMNS} FROM records WHERE {where} AND num > ? ORDER BY num LIMIT {_BATCH}"
        return [(row[0], self._record(row)) for row in self._connection.execute(query, (*values, after))]

    def fetch(self, nums: Iterable[int]) -> dict[int, Record]:
        """Return the records of these row numbers by number."""
        wanted, found = sorted(set(nums)), {}
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            query = f"SELECT {_COLUMNS} FROM records WHERE num IN ({', '.join('?' * len(part))})"
            found.update((row[0], self._record(row)) for row in self._connection.execute(query, part))
        return found

    def nums(self, owner: str | None = None, kind: str | None = None) -> NDArray[np.int64]:
        """Return the row numbers `[n]` of an owner and a kind (None: any), ascending."""
        where, values = _where(owner, kind)
        rows = self._connection.execute(f"SELECT num FROM records WHERE {where} ORDER BY num", values)
        return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def vectors(self, after: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield row numbers `[n]` and vectors `[n, dim]` of the rows with `num > after`, in batches, ascending."""
        cursor = self._connection.execute("SELECT num, vector FROM records WHERE num > ? ORDER BY num", (after,))
        while rows := cursor.fetchmany(_BATCH):
            yield np.array([row[0] for row in rows], np.int64), np.stack([self._vector(*row) for row in rows])

    def problems(self) -> list[str]:
        """Return what SQLite's own integrity check, or a look at every vector, finds wrong, one line each.

        Raises:
            StoreCorrupt: a row cannot be read at all.
        """
        lines = [row[0] for row in self._connection.execute("PRAGMA integrity_check")]
        problems = [] if lines == ["ok"] else lines
        for nums, rows in self.vectors():
            for num, vector in zip(nums, rows, strict=True):
                try:
                    check_vectors(vector, ndim=1, dim=self.meta.dim, metric=self.meta.metric, what="its vector")
                except InvalidVector as error:
                    problems.append(f"row {num}: {error}")
        return problems

    def _touch(self) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE key = 'revision'", (uuid.uuid4().hex,))

    def _vector(self, num: int, blob: bytes) -> NDArray[np.float32]:
        if len(blob) != 4 * self.meta.dim:
            raise StoreCorrupt(f"{self.file}: row {num} has {len(blob)} vector bytes; expected {4 * self.meta.dim}")
        return np.frombuffer(blob, "<f4").astype(np.float32)

    def _record(self, row: tuple[Any, ...]) -> Record:
        num, id, kind, owner, text, blob, created, extra = row
        try:
            parsed = json.loads(extra)
        except ValueError as error:
            raise StoreCorrupt(f"{self.file}: row {num} has an extra that is not JSON ({error})") from error
        return Record(
            id=id,
            kind=kind,
            owner=owner,
            text=text,
            vector=self._vector(num, blob),
            encoder=self.meta.encoder,
            created=created,
            extra=parsed,
        )


def _where(owner: str | None, kind: str | None) -> tuple[str, tuple[str, ...]]:
    given = {"owner": owner, "kind": kind}
    used = {name: value for name, value in given.items() if value is not None}
    return " AND ".join([*(f"{name} = ?" for name in used), "TRUE"]), tuple(used.values())
