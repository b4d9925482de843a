"""The store: records in SQLite, an index over them, one class that says what may be asked of them.

SQLite is the truth. The index is brought into step when a search needs it, whoever wrote in the meantime, so that a
write touches nothing but SQLite and a crash at any moment leaves nothing to repair.

Here stands what callers may rely on; the work is done in `opening`, `writing`, `reading`, `searching` and `upkeep`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final, overload

import numpy as np
from numpy.typing import ArrayLike

from vectorstore.checks import check_ids, check_string
from vectorstore.filters import Names, Where, make_condition
from vectorstore.index.config import IndexConfig, IndexKind
from vectorstore.index.sync import SyncedIndex
from vectorstore.inspection import StoreStats, find_problems, gather_stats
from vectorstore.operations import maintenance as upkeep
from vectorstore.operations import reading, writing
from vectorstore.operations.opening import AUTO, open_table
from vectorstore.operations.searching import Searcher
from vectorstore.parquet import write_parquet
from vectorstore.repair import RepairReport, repair_folder
from vectorstore.table.access import TableAccess
from vectorstore.table.batches import batch_columns
from vectorstore.table.records import RecordTable
from vectorstore.types import Hit, Metric, NewRecord, Record

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@final
class VectorStore:
    """Records with vectors, kept durably in a folder and searched by nearness. Make one with `open`.

    May be shared by threads (calls take turns) and its folder by processes (one writes at a time, each sees what the
    others committed). Any method may raise `StoreClosed`, and `StoreCorrupt` or `StorageFailure` when the file or the
    disk is at fault; those that write, `StoreReadOnly` or `StoreLocked`.

    Filters: `owner` and `kind` are a string, or a collection of which any will do; `where` limits fields of `extra`:
    `{"story": "x", "position": {"ge": 3, "lt": 9}}` (see `vectorstore.filters.make_condition`); `exclude` leaves out
    ids. What a filter matches is remembered, so that using it again costs no query.

    Attributes:
        path: the folder.
        encoder: identity of the encoder that all vectors come from.
        dim: width of the vectors.
        metric: how nearness is measured.
        readonly: whether writes are refused.
    """

    def __init__(self, path: Path, table: RecordTable, *, readonly: bool, auto: bool, mmap: bool) -> None:
        """Wrap an open table; `open` does."""
        self.path = path
        self.encoder = table.meta.encoder
        self.dim = table.meta.dim
        self.metric = table.meta.metric
        self.readonly = readonly
        self._auto = auto
        self._access = TableAccess(path, table, readonly=readonly)
        self._index = SyncedIndex(path, table, mmap=mmap)
        self._searcher = Searcher(self._access, self._index)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: str | None = None,
        dim: int | None = None,
        metric: Metric = Metric.COSINE,
        readonly: bool = False,
        index: IndexConfig | IndexKind | str | None = None,
        indexed: Sequence[str] = (),
        mmap: bool = False,
    ) -> Self:
        """Open the store in the folder `path`, or create it (and the folder) if `encoder` and `dim` are given.

        Args:
            path: folder that holds `records.sqlite` and, as a cache, one index file.
            encoder: identity of the encoder; fixed at creation, checked afterwards if given.
            dim: width of the vectors; fixed at creation, checked afterwards if given.
            metric: fixed at creation. Afterwards the store's own holds, and asking for `L2` of a cosine store is
                an error; `store.metric` tells which it is.
            readonly: refuse writes and write nothing, the index file included. The store must exist.
            index: the kind of index for a store that has none chosen yet. "auto": `close` calls `optimize("auto")`.
            indexed: fields of `extra` that SQLite is to index, so that `where` on them reads only what matches.
            mmap: map the index file into memory rather than read it. Vectors added later are kept beside it.

        Raises:
            StoreNotFound: there is none, and `encoder` and `dim` were not both given, or `readonly` was.
            EncoderMismatch, DimensionMismatch, MetricMismatch: the store was created with other values.
            StoreCorrupt, ForeignDatabase, NewerSchema: the file is not one that this package can use.
            StoreLocked: another process held the lock for longer than the busy timeout (5 s).
            StorageFailure: the file system refused.
            InvalidArgument: `encoder` is empty, `dim` below 1, or `metric`, `index` or `indexed` unusable.
        """
        folder = Path(path)
        table = open_table(
            folder, encoder=encoder, dim=dim, metric=metric, readonly=readonly, index=index, indexed=indexed
        )
        return cls(folder, table, readonly=readonly, auto=index == AUTO, mmap=mmap)

    def close(self) -> None:
        """Save the index if one was used and has changed much, and let go of the files. Closing twice does nothing."""
        with self._access.lock:
            try:
                if not self._access.closed and not self.readonly:
                    upkeep.leave(self._access, self._index, auto=self._auto)
            finally:
                self._access.close()

    @property
    def revision(self) -> str:
        """Mark of the present contents: equal marks mean equal contents. Every write draws a new one."""
        with self._access.transaction() as table:
            return table.revision()

    def __len__(self) -> int:
        """Return the number of records."""
        with self._access.transaction() as table:
            return table.count()

    def __enter__(self) -> Self:
        """Return the store itself."""
        self._access.table()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        """Show what the store is, without reading it."""
        state = "closed" if self._access.closed else "readonly" if self.readonly else "open"
        return f"<VectorStore {str(self.path)!r} encoder={self.encoder!r} dim={self.dim} metric={self.metric} {state}>"

    def add(self, records: Iterable[NewRecord] | NewRecord) -> list[str]:
        """Add records in one transaction and return their ids in order; when it returns, they are on the disk.

        Either all are added or, on any error, none.

        Raises:
            DuplicateId: an id is in the store or twice among `records`.
            EncoderMismatch, DimensionMismatch, InvalidVector: a vector does not belong here.
            InvalidRecord: not a `NewRecord`, or `extra` was changed into something that is not JSON.
        """
        return writing.insert_records(self._access, [records] if isinstance(records, NewRecord) else records)

    def add_batch(
        self,
        vectors: ArrayLike,
        texts: Sequence[str],
        *,
        kind: str | Sequence[str],
        owner: str | Sequence[str] = "",
        ids: Sequence[str] | None = None,
        extras: Sequence[dict[str, Any]] | None = None,
    ) -> list[str]:
        """Add records given as columns, as `add` does but quicker, and return their ids.

        Args:
            vectors: `[n, dim]`, stored as float32.
            texts: `n` strings.
            kind, owner: one for all, or `n` strings.
            ids: `n` names unique in the store; None draws them.
            extras: `n` JSON objects; None for empty ones.

        Raises:
            InvalidArgument: a column has another length or holds something else; otherwise as `add`.
        """
        columns = {"kind": kind, "owner": owner, "ids": ids, "extras": extras}
        meta = self._access.table().meta
        return writing.insert(self._access, batch_columns(vectors, texts, meta, created=writing.now(), **columns))

    def add_stream(
        self, records: Iterable[NewRecord], batch: int = 4096, on_batch: Callable[[int], None] | None = None
    ) -> int:
        """Add records as they come, `batch` to a transaction, and return how many.

        After each batch, which is then on the disk, `on_batch` is told the number added so far. On an error of `add`
        or of the iterable, the batches before stay.
        """
        return writing.insert_stream(self._access, records, batch, on_batch)

    @overload
    def search(
        self,
        vector: Vector | Sequence[float],
        k: int = 10,
        *,
        owner: Names = None,
        kind: Names = None,
        where: Where | None = None,
        exclude: Iterable[str] = (),
        diversity: float = 0.0,
    ) -> list[Hit]: ...
    @overload
    def search(
        self,
        vector: Matrix | Sequence[Sequence[float]],
        k: int = 10,
        *,
        owner: Names = None,
        kind: Names = None,
        where: Where | None = None,
        exclude: Iterable[str] = (),
        diversity: float = 0.0,
    ) -> list[list[Hit]]: ...
    def search(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        owner: Names = None,
        kind: Names = None,
        where: Where | None = None,
        exclude: Iterable[str] = (),
        diversity: float = 0.0,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the `k` nearest records, nearest first, equal scores in insertion order.

        Fewer than `k` come back when fewer match. A flat index compares every matching record (in float32); the others
        find most of the nearest. Scores are computed in float64 from the stored vectors, whatever the kind of index.
        Changes nothing.

        Args:
            vector: `[dim]`, or `[n, dim]` for n searches at once: an array, lists of numbers, or a tensor on the CPU.
            k: how many, at least 1.
            owner, kind, where, exclude: filters, see the class; None for all.
            diversity: from 0 to 1. Above 0, hits are chosen among the `4 k` nearest, in an order that weighs nearness
                against likeness to those chosen before (maximal marginal relevance).

        Returns:
            Hits for a vector; for a matrix a list of hits for each row, the same as for the row alone (but where the
            k-th and the next differ by less than float32 can tell). Type checkers take an array of unknown shape for
            one vector.

        Raises:
            EmptyStore: the store holds no records at all. (A filter that matches none gives no hits.)
            DimensionMismatch, InvalidVector: `vector` cannot be compared with the stored ones.
            InvalidArgument: `k`, `diversity` or a filter is out of range or of the wrong type.
        """
        condition, left_out = make_condition(owner, kind, where), check_ids("exclude", exclude)
        hits = self._searcher.nearest(vector, k, condition, left_out, diversity)
        return hits if np.ndim(vector) == 2 else hits[0]

    def search_range(
        self,
        vector: ArrayLike,
        min_score: float,
        *,
        limit: int | None = None,
        owner: Names = None,
        kind: Names = None,
        where: Where | None = None,
        exclude: Iterable[str] = (),
    ) -> list[Hit]:
        """Return the records with a score of at least `min_score`, nearest first, at most `limit`.

        Arguments and errors as `search`. Complete with a flat index; the others may miss some.
        """
        condition, left_out = make_condition(owner, kind, where), check_ids("exclude", exclude)
        return self._searcher.above(vector, min_score, limit, condition, left_out)

    def get(self, id: str) -> Record:
        """Return the record with this id.

        Raises:
            RecordNotFound: there is none.
            InvalidArgument: `id` is not text.
        """
        check_string("id", id)
        return reading.get(self._access, [id])[0]

    def get_many(self, ids: Iterable[str]) -> list[Record]:
        """Return the records with these ids, in their order; errors as `get`."""
        return reading.get(self._access, check_ids("ids", ids))

    def find(self, ids: Iterable[str]) -> list[Record]:
        """Return the records with those of these ids that exist, in their order.

        Raises:
            InvalidArgument: an id is not text.
        """
        return reading.find(self._access, check_ids("ids", ids))

    def records(
        self,
        owner: Names = None,
        kind: Names = None,
        *,
        where: Where | None = None,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """Iterate over the records that match, in insertion order or by a field of `extra`, at most `limit`.

        The store may be written meanwhile: in insertion order records added are seen, records deleted may be.

        Args:
            owner, kind, where: filters, see the class.
            order_by: a field of `extra`; records without it come first, equal ones in insertion order.
            descending: the other way round.
            limit: how many at most.

        Raises:
            InvalidArgument: an argument has the wrong type.
        """
        return reading.matching(self._access, make_condition(owner, kind, where), order_by, descending, limit)

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        vector: ArrayLike | None = None,
        owner: str | None = None,
        kind: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Change the fields that are not None; `id` and `created` stay, and the record comes last in insertion order.

        Raises:
            RecordNotFound: there is none.
            InvalidRecord, InvalidVector, DimensionMismatch: a new value does not belong here.
        """
        check_string("id", id)
        changes = {"text": text, "vector": vector, "owner": owner, "kind": kind, "extra": extra}
        writing.update(self._access, self._index, id, changes)

    def delete(self, id: str | Iterable[str]) -> None:
        """Delete the record with this id, or those with these ids; when it returns, that is on the disk.

        Raises:
            RecordNotFound: one of them does not exist; then none is deleted.
            InvalidArgument: an id is not text.
        """
        if isinstance(id, str) or not isinstance(id, Iterable):
            check_string("id", id)
            id = [id]
        writing.delete(self._access, self._index, check_ids("id", id))

    def delete_where(self, owner: Names = None, kind: Names = None, *, where: Where | None = None) -> int:
        """Delete the records that match and return how many.

        Raises:
            InvalidArgument: no filter is given, or one has the wrong type.
        """
        return writing.delete_where(self._access, self._index, make_condition(owner, kind, where))

    def optimize(self, kind: IndexConfig | IndexKind | str | None = None) -> None:
        """Choose a kind of index, build it and write its file. May take minutes; other calls of this store wait.

        An index that is of that kind already is extended by what came since, unless many of its vectors are deleted.

        Args:
            kind: a kind, a configuration, "auto" for the kind that suits the number of records (see
                `vectorstore.index.config`), or None for the one the store has.

        Raises:
            TooFewVectors: an ivfpq index cannot be trained on so few.
            InvalidArgument: a parameter is out of range or does not suit the width.
            MissingDependency: FAISS is needed and not installed.
        """
        upkeep.optimize(self._access, self._index, kind)

    def compact(self) -> None:
        """Give back the space of deleted records: in the database, and in the index if it holds any."""
        upkeep.compact(self._access, self._index)

    def rebuild(self) -> None:
        """Build the index anew from the records, and its file too unless the store is read-only.

        Raises:
            StoreLocked: the lock that guards the file was not free in time.
            StorageFailure: the file could not be written.
        """
        upkeep.rebuild(self._access, self._index)

    def stats(self) -> StoreStats:
        """Return counts by owner and kind, the state of the index and the sizes of the files."""
        with self._access.transaction() as table:
            self._index.sync()
            return gather_stats(self.path, table, self._index)

    def verify(self) -> list[str]:
        """Check the file, every record, the index and its file; return what is wrong, one line each, if anything.

        Reads everything. Problems of the index alone are mended by `rebuild`, others by `repair`.
        """
        with self._access.lock:
            return find_problems(self.path, self._access.table(), self._index)

    @staticmethod
    def repair(path: str | Path) -> RepairReport:
        """Mend a store that no process has open; see `vectorstore.repair.repair_folder`."""
        return repair_folder(Path(path))

    def export_parquet(
        self, file: str | Path, *, owner: Names = None, kind: Names = None, where: Where | None = None
    ) -> int:
        """Write the records that match into a Parquet file and return how many; see `vectorstore.parquet`.

        Raises:
            MissingDependency: pyarrow is not installed.
            StorageFailure: the file could not be written.
        """
        records = reading.pages(self._access, make_condition(owner, kind, where))
        return write_parquet(Path(file), self._access.table().meta, records)

    def import_parquet(self, file: str | Path) -> int:
        """Add the records of a Parquet file that `export_parquet` wrote, all or none, and return how many.

        Raises:
            EncoderMismatch, DimensionMismatch: the file is of another encoder or width.
            InvalidRecord: it has other columns, or a row that cannot be stored.
            DuplicateId: a record of it is in the store.
            MissingDependency: pyarrow is not installed.
            StorageFailure: the file cannot be read.
        """
        return writing.insert_parquet(self._access, Path(file))
