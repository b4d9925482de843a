"""Records added, changed and deleted: each call one transaction, and nothing touched but the table.

The index takes in what was added when it is next used. Of what was deleted it is told at once, which spares it looking
for what is gone; but after the commit, since until then the deletion may be taken back.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from vectorstore.checks import Columns, positive_int, record_columns
from vectorstore.errors import InvalidArgument, RecordNotFound
from vectorstore.filters import EVERYTHING, Condition
from vectorstore.index.sync import SyncedIndex
from vectorstore.parquet import read_parquet
from vectorstore.table.access import TableAccess
from vectorstore.table.records import RecordTable
from vectorstore.types import NewRecord


def now() -> str:
    """Return the time at which a record is created: UTC in ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def insert(access: TableAccess, columns: Columns) -> list[str]:
    """Add what was checked, all or none, and return the ids.

    Raises:
        DuplicateId: an id is in the store or twice in the columns.
    """
    with access.transaction(write=True) as table:
        if columns.ids:
            table.insert(columns)
    return columns.ids


def insert_records(access: TableAccess, records: Iterable[NewRecord]) -> list[str]:
    """Add records, all or none, and return their ids; errors as `VectorStore.add`."""
    given = list(records)
    return insert(access, record_columns(given, access.table().meta, now()))


def insert_stream(
    access: TableAccess, records: Iterable[NewRecord], batch: int, on_batch: Callable[[int], None] | None
) -> int:
    """Add records `batch` at a time and return how many; arguments and errors as `VectorStore.add_stream`."""
    batch = positive_int("batch", batch)
    iterator, count = iter(records), 0
    while part := list(islice(iterator, batch)):
        count += len(insert_records(access, part))
        if on_batch is not None:
            on_batch(count)
    return count


def insert_parquet(access: TableAccess, file: Path) -> int:
    """Add the records of a file, all or none, and return how many; errors as `VectorStore.import_parquet`."""
    count = 0
    with access.transaction(write=True) as table:
        for columns in read_parquet(file, table.meta):
            table.insert(columns)
            count += len(columns.ids)
    return count


def update(access: TableAccess, index: SyncedIndex, id: str, changes: dict[str, Any]) -> None:
    """Change the fields of a record that are not None in `changes`; errors as `VectorStore.update`."""
    with _deleting(access, index) as (table, gone):
        old = table.get([id])[0]
        fields = {name: getattr(old, name) if value is None else value for name, value in changes.items()}
        columns = record_columns([NewRecord(id=id, **fields)], table.meta, old.created)
        gone += table.nums_of([id]).values()
        table.delete(gone)
        table.insert(columns)


def delete(access: TableAccess, index: SyncedIndex, ids: list[str]) -> None:
    """Delete the records with these ids, all or none.

    Raises:
        RecordNotFound: one of them does not exist.
    """
    with _deleting(access, index) as (table, gone):
        found = table.nums_of(ids)
        for id in ids:
            if id not in found:
                raise RecordNotFound(f"no record has the id {id!r}; nothing was deleted")
        gone += found.values()
        table.delete(gone)


def delete_where(access: TableAccess, index: SyncedIndex, condition: Condition) -> int:
    """Delete the records of a condition and return how many.

    Raises:
        InvalidArgument: the condition is all records.
    """
    if condition is EVERYTHING:
        raise InvalidArgument("no filter was given, which would delete everything; give owner=, kind= or where=")
    with _deleting(access, index) as (table, gone):
        gone += table.nums(condition).tolist()
        table.delete(gone)
    return len(gone)


@contextmanager
def _deleting(access: TableAccess, index: SyncedIndex) -> Iterator[tuple[RecordTable, list[int]]]:
    """A write transaction, and a list for the numbers of the rows deleted in it; once it is committed, they go."""
    gone: list[int] = []
    with access.lock:
        with access.transaction(write=True) as table:
            yield table, gone
        index.forget(gone)
