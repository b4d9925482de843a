"""The store: records in SQLite, an index over them, one small class.

SQLite is the truth. The index is brought into step when a search needs it, whoever wrote in the meantime, so that a
write touches nothing but SQLite and a crash at any moment leaves nothing to repair.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, final, overload

import numpy as np
from numpy.typing import NDArray

from vectorstore.checks import (
    check_string,
    check_vectors,
    checked_metric,
    complete_record,
    positive_int,
)
from vectorstore.errors import EmptyStore, InvalidArgument, StoreClosed, StoreCorrupt, StoreReadOnly
from vectorstore.records import RecordTable
from vectorstore.sync import SyncedIndex
from vectorstore.types import Hit, Metric, NewRecord, Record
from vectorstore.vectors import indexed_rows, score_rows

RECORDS_FILE = "records.sqlite"
INDEX_FILE = "index.faiss"


@final
class VectorStore:
    """Records with vectors, kept durably in a folder and searched exactly. Make one with `open`.

    May be shared by threads (calls take turns) and its folder by processes (one writes at a time, each sees what the
    others committed). Any method may raise `StoreClosed`, and `StoreCorrupt` or `StorageFailure` when the file or the
    disk is at fault.

    Attributes:
        path: the folder.
        encoder: identity of the encoder that all vectors come from.
        dim: width of the vectors.
        metric: how nearness is measured.
        readonly: whether writes are refused.
    """

    def __init__(self, path: Path, table: RecordTable, readonly: bool) -> None:
        """Wrap an open table; use `open`."""
        self.path = path
        self.encoder = table.meta.encoder
        self.dim = table.meta.dim
        self.metric = table.meta.metric
        self.readonly = readonly
        self._open_table: RecordTable | None = table
        self._index = SyncedIndex(path / INDEX_FILE, table)
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: str | None = None,
        dim: int | None = None,
        metric: Metric = Metric.COSINE,
        readonly: bool = False,
    ) -> Self:
        """Open the store in the folder `path`, or create it (and the folder) if `encoder` and `dim` are given.

        Args:
            path: folder that holds `records.sqlite` and, as a cache, `index.faiss`.
            encoder: identity of the encoder; fixed at creation, checked afterwards if given.
            dim: width of the vectors; fixed at creation, checked afterwards if given.
            metric: fixed at creation. Afterwards the store's own holds, and asking for `L2` of a cosine store is
                an error; `store.metric` tells which it is.
            readonly: refuse writes and write nothing, the index cache included. The store must exist.

        Raises:
            StoreNotFound: there is none, and `encoder` and `dim` were not both given, or `readonly` was.
            EncoderMismatch, DimensionMismatch, MetricMismatch: the store was created with other values.
            StoreCorrupt, ForeignDatabase, NewerSchema: the file is not one that this package can use.
            StoreLocked: another process held the lock for longer than the busy timeout (5 s).
            StorageFailure: the file system refused.
            InvalidArgument: `encoder` is empty, `dim` below 1 or `metric` unknown.
        """
        check_string("encoder", encoder, optional=True)
        if encoder == "":
            raise InvalidArgument("encoder is empty; expected a string of at least one character")
        dim = None if dim is None else positive_int("dim", dim)
        metric = checked_metric(metric)
        folder = Path(path)
        table = RecordTable(folder / RECORDS_FILE, encoder=encoder, dim=dim, metric=metric, readonly=readonly)
        return cls(folder, table, readonly)

    def add(self, records: Iterable[NewRecord] | NewRecord) -> list[str]:
        """Add records in one transaction and return their ids in order; when it returns, they are on the disk.

        Either all are added or, on any error, none.

        Raises:
            DuplicateId: an id is in the store or twice among `records`.
            EncoderMismatch, DimensionMismatch, InvalidVector: a vector does not belong here.
            InvalidRecord: not a `NewRecord`, or `extra` was changed into something that is not JSON.
            StoreReadOnly, StoreLocked: the store cannot be written, or not now.
        """
        created = datetime.now(UTC).isoformat(timespec="microseconds")
        given = [records] if isinstance(records, NewRecord) else list(records)
        meta = self._table().meta
        complete = [complete_record(record, meta, position, created) for position, record in enumerate(given)]
        with self._transaction(write=True) as table:
            if complete:
                table.insert(complete)
        return [record.id for record in complete]

    @overload
    def search(
        self,
        vector: np.ndarray[tuple[int], np.dtype[np.float32]],
        k: int = 10,
        *,
        owner: str | None = None,
        kind: str | None = None,
    ) -> list[Hit]: ...
    @overload
    def search(
        self,
        vector: np.ndarray[tuple[int, int], np.dtype[np.float32]],
        k: int = 10,
        *,
        owner: str | None = None,
        kind: str | None = None,
    ) -> list[list[Hit]]: ...
    def search(
        self, vector: NDArray[np.float32], k: int = 10, *, owner: str | None = None, kind: str | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """Return the `k` nearest records, nearest first, equal scores in insertion order.

        Fewer than `k` come back when fewer match. Exact: every matching record is compared (in float32), and the
        scores of those found are computed in float64 from the stored vectors. Changes nothing.

        Args:
            vector: float32 `[dim]`, or `[n, dim]` for n searches at once.
            k: how many, at least 1.
            owner: only records of this owner ("": nobody's); None for all.
            kind: only records of this kind; None for all.

        Returns:
            Hits for a vector; for a matrix a list of hits for each row, the same as for the row alone (but where the
            k-th and the next differ by less than float32 can tell). Type checkers take an array of unknown shape for
            one vector.

        Raises:
            EmptyStore: the store holds no records at all. (A filter that matches none gives no hits.)
            DimensionMismatch, InvalidVector: `vector` cannot be compared with the stored ones.
            InvalidArgument: `k` is below 1, or a filter is not text.
        """
        k = positive_int("k", k)
        check_string("owner", owner, optional=True)
        check_string("kind", kind, optional=True)
        ndim = vector.ndim if isinstance(vector, np.ndarray) and vector.ndim == 2 else 1
        check_vectors(vector, ndim=ndim, dim=self.dim, metric=self.metric, what="the query")
        queries = np.atleast_2d(vector)
        with self._transaction() as table:
            if table.count() == 0:
                raise EmptyStore(f"{self.path} holds no records; add some before searching")
            among = None if owner is None and kind is None else table.nums(owner, kind)
            found = self._index.sync().search(indexed_rows(queries, self.metric), k, among)
            records = table.fetch(num for nums in found for num in nums)
        hits = [self._ranked(query, nums, records) for query, nums in zip(queries, found, strict=True)]
        return hits if ndim == 2 else hits[0]

    def get(self, id: str) -> Record:
        """Return the record with this id.

        Raises:
            RecordNotFound: there is none.
            InvalidArgument: `id` is not text.
        """
        check_string("id", id, optional=False)
        with self._transaction() as table:
            return table.get(id)

    def records(self, owner: str | None = None, kind: str | None = None) -> Iterator[Record]:
        """Iterate over the records of an owner and a kind (None: all) in insertion order.

        The store may be written meanwhile: records added are seen, records deleted may be.

        Raises:
            InvalidArgument: a filter is not text.
        """
        check_string("owner", owner, optional=True)
        check_string("kind", kind, optional=True)
        self._table()
        return self._pages(owner, kind)

    def delete(self, id: str) -> None:
        """Delete the record with this id; when it returns, that is on the disk.

        Raises:
            RecordNotFound: there is none.
            InvalidArgument: `id` is not text.
            StoreReadOnly, StoreLocked: the store cannot be written, or not now.
        """
        check_string("id", id, optional=False)
        with self._transaction(write=True) as table:
            table.delete(id)

    def verify(self) -> list[str]:
        """Check the file, every record, and that the index holds just their vectors; return what is wrong, if anything.

        Reads everything. Problems of the index alone are mended by `rebuild`.
        """
        problems: list[str] = []
        try:
            with self._transaction() as table:
                problems += table.problems()
                if not problems:
                    problems += self._index.problems()
        except StoreCorrupt as error:
            problems.append(str(error))
        return problems

    def rebuild(self) -> None:
        """Build the index anew from the records, and its cache file too unless the store is read-only.

        Raises:
            StoreLocked: the lock that guards the cache file was not free in time.
            StorageFailure: the cache file could not be written.
        """
        with self._lock:
            with self._transaction():
                self._index.rebuild()
            if not self.readonly:
                self._index.save()

    def close(self) -> None:
        """Save the index if one was used, and let go of the files. Closing twice does nothing."""
        with self._lock:
            if self._open_table is None:
                return
            try:
                if not self.readonly:
                    self._index.save_if_possible()
            finally:
                table, self._open_table = self._open_table, None
                table.close()

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

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[RecordTable]:
        with self._lock:
            table = self._table()
            if write and self.readonly:
                raise StoreReadOnly(f"the store at {self.path} was opened with readonly=True; open it without to write")
            with table.transaction(write=write):
                yield table

    def _ranked(self, query: NDArray[np.float32], nums: list[int], records: dict[int, Record]) -> list[Hit]:
        if not nums:
            return []
        scores = score_rows(query, np.stack([records[num].vector for num in nums]), self.metric).tolist()
        best_first = sorted(zip(scores, nums, strict=True), key=lambda pair: (-pair[0], pair[1]))
        return [Hit(records[num], score) for score, num in best_first]

    def _pages(self, owner: str | None, kind: str | None) -> Iterator[Record]:
        last = 0
        while True:
            with self._transaction() as table:
                page = table.page(last, owner, kind)
            if not page:
                return
            for num, record in page:
                last = num
                yield record
