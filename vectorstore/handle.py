"""An open store: the table, the index and the lock that serialises them, and what the public methods are made of."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vectorstore.checks import Columns
from vectorstore.errors import EmptyStore, StoreClosed, StoreReadOnly, VectorStoreError
from vectorstore.filters import Condition
from vectorstore.kinds import IndexConfig, chosen_config
from vectorstore.ranking import rank
from vectorstore.records import BATCH, RecordTable
from vectorstore.rows import RowCache
from vectorstore.segment import NONE
from vectorstore.sync import CONFIG_KEY, SyncedIndex
from vectorstore.types import Hit, Record
from vectorstore.vectors import indexed_rows

logger = logging.getLogger(__name__)

_POOL = 4  # candidates per hit among which diversity chooses
_BESIDE_SHARE = 0.05  # of vectors that are compared one by one beside a built index, above which "auto" takes them in


class StoreHandle(ABC):
    """What `VectorStore` is built on: an open table with its index, transactions, and leaving.

    Attributes:
        path: the folder.
        encoder: identity of the encoder that all vectors come from.
        dim: width of the vectors.
        metric: how nearness is measured.
        readonly: whether writes are refused.
    """

    def __init__(self, path: Path, table: RecordTable, *, readonly: bool, auto: bool, mmap: bool) -> None:
        """Wrap an open table."""
        self.path = path
        self.encoder = table.meta.encoder
        self.dim = table.meta.dim
        self.metric = table.meta.metric
        self.readonly = readonly
        self._auto = auto
        self._open_table: RecordTable | None = table
        self._cache = RowCache(table)
        self._index = SyncedIndex(path, table, mmap=mmap)
        self._lock = threading.RLock()

    @abstractmethod
    def optimize(self, kind: IndexConfig | str | None = None) -> None:
        """Choose a kind of index, build it and write its file."""

    def close(self) -> None:
        """Save the index if one was used and has changed much, and let go of the files. Closing twice does nothing."""
        with self._lock:
            if self._open_table is None:
                return
            try:
                if not self.readonly:
                    self._leave()
            finally:
                table, self._open_table = self._open_table, None
                table.close()

    @property
    def revision(self) -> str:
        """Mark of the present contents: equal marks mean equal contents. Every write draws a new one."""
        with self._transaction() as table:
            return table.revision()

    def __len__(self) -> int:
        """Return the number of records."""
        with self._transaction() as table:
            return table.count()

    def __enter__(self) -> Self:
        """Return the store itself."""
        self._table()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        """Show what the store is, without reading it."""
        state = "closed" if self._open_table is None else "readonly" if self.readonly else "open"
        return f"<VectorStore {str(self.path)!r} encoder={self.encoder!r} dim={self.dim} metric={self.metric} {state}>"

    def _table(self) -> RecordTable:
        if self._open_table is None:
            raise StoreClosed(f"the store at {self.path} is closed; open it again with VectorStore.open")
        return self._open_table

    def _leave(self) -> None:
        """Bring the index file up to date; a failure is only logged, since the records can rebuild it."""
        try:
            if self._auto and self._outgrown():
                self.optimize("auto")
            self._index.save(always=False)
        except VectorStoreError as error:
            logger.warning("the index of %s was not saved (%s); the records can rebuild it", self.path, error)

    def _outgrown(self) -> bool:
        """Whether "auto" would choose another kind, or much was added beside the built part of the index."""
        with self._transaction() as table:
            present, count = self._index.config(), table.count()
            return chosen_config("auto", present, count) != present or self._index.beside > _BESIDE_SHARE * count

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[RecordTable]:
        with self._lock:
            table = self._table()
            if write and self.readonly:
                raise StoreReadOnly(f"the store at {self.path} was opened with readonly=True; open it without to write")
            with table.transaction(write=write):
                yield table

    @contextmanager
    def _deleting(self) -> Iterator[tuple[RecordTable, list[int]]]:
        """A write transaction, and a list for the numbers of the rows deleted in it; once it is committed, they go."""
        gone: list[int] = []
        with self._lock:
            with self._transaction(write=True) as table:
                yield table, gone
            self._index.forget(gone)

    def _insert(self, columns: Columns) -> list[str]:
        with self._transaction(write=True) as table:
            if columns.ids:
                table.insert(columns)
        return columns.ids

    def _hits(
        self, queries: NDArray[np.float32], k: int, condition: Condition, exclude: list[str], diversity: float
    ) -> list[list[Hit]]:
        asked = indexed_rows(queries, self.metric)
        with self._transaction() as table:
            self._index.sync()
            if not len(self._index):
                raise EmptyStore(f"{self.path} holds no records; add some before searching")
            selection = self._index.selection(condition)
            excluded = np.fromiter(table.nums_of(exclude).values(), np.int64) if exclude else NONE
            pool = _POOL * k if diversity else k
            found = self._index.search(asked, pool, selection, excluded)
            return rank(queries, found, k, self._cache, self.metric, self.encoder, diversity=diversity)

    def _declare(self, wanted: IndexConfig | None, indexed: Sequence[str]) -> None:
        with self._transaction() as table:
            missing = set(indexed) - set(table.indexed_fields())
            chosen = wanted is not None and table.value(CONFIG_KEY) is None
        if missing or chosen:
            with self._transaction(write=True) as table:
                table.index_fields(sorted(missing))
        if chosen and wanted is not None:
            self._set_config(wanted)

    def _set_config(self, config: IndexConfig) -> None:
        with self._transaction(write=True) as table:
            table.set_value(CONFIG_KEY, config.dump())

    def _pages(self, condition: Condition) -> Iterator[Record]:
        last = 0
        while True:
            with self._transaction() as table:
                page = table.page(last, condition)
            if not page:
                return
            for row in page:
                last = row[0]
                yield Record(row, self.encoder)

    def _ordered(self, condition: Condition, order_by: str | None, descending: bool) -> Iterator[Record]:
        with self._transaction() as table:
            nums = table.nums(condition, order_by=order_by, descending=descending).tolist()
        for start in range(0, len(nums), BATCH):
            with self._transaction() as table:
                rows = {row[0]: row for row in table.fetch(nums[start : start + BATCH])}
            yield from (Record(rows[num], self.encoder) for num in nums[start : start + BATCH] if num in rows)
