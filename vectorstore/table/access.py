"""The table of an open store behind the store's lock: whose turn it is, what may be written, and closing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from vectorstore.errors import StoreClosed, StoreReadOnly
from vectorstore.table.records import RecordTable


@final
class TableAccess:
    """The way to a store's table for all its threads.

    Attributes:
        folder: of the store.
        meta: what was fixed when the store was created; may be read without the lock, and after closing.
        readonly: whether writes are refused.
        lock: reentrant; held by every transaction, and by whoever needs several in a row.
    """

    def __init__(self, folder: Path, table: RecordTable, *, readonly: bool) -> None:
        """Take over an open table."""
        self.folder = folder
        self.meta = table.meta
        self.readonly = readonly
        self.lock = threading.RLock()
        self._table: RecordTable | None = table

    @property
    def closed(self) -> bool:
        """Whether the table was let go of."""
        return self._table is None

    def table(self) -> RecordTable:
        """Return the table.

        Raises:
            StoreClosed: there is none any more.
        """
        if self._table is None:
            raise StoreClosed(f"the store at {self.folder} is closed; open it again with VectorStore.open")
        return self._table

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[RecordTable]:
        """One transaction under the lock: a consistent view, and with `write` the write lock of the file.

        Raises:
            StoreClosed: the store was closed.
            StoreReadOnly: a write was asked of a store that was opened without.
            StoreLocked: another process held the write lock for longer than the busy timeout.
        """
        with self.lock:
            table = self.table()
            if write and self.readonly:
                raise StoreReadOnly(
                    f"the store at {self.folder} was opened with readonly=True; open it without to write"
                )
            with table.transaction(write=write):
                yield table

    def close(self) -> None:
        """Let go of the table and its file. Closing twice does nothing."""
        with self.lock:
            if self._table is not None:
                table, self._table = self._table, None
                table.close()
