"""The store: records in SQLite, an index over them, one class.

SQLite is the truth. The index is brought into step when a search needs it, whoever wrote in the meantime, so that a
write touches nothing but SQLite and a crash at any moment leaves nothing to repair.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self, final, overload

import numpy as np
from numpy.typing import NDArray

from vectorstore.batches import batch_columns
from vectorstore.checks import check_string, check_vectors, checked_metric, positive_int, record_columns
from vectorstore.database import RECORDS_FILE
from vectorstore.errors import InvalidArgument, RecordNotFound
from vectorstore.filters import EVERYTHING, Names, Where, make_condition
from vectorstore.handle import StoreHandle
from vectorstore.inspection import StoreStats, find_problems, gather_stats
from vectorstore.kinds import IndexConfig, IndexKind, chosen_config
from vectorstore.parquet import read_parquet, write_parquet
from vectorstore.records import RecordTable
from vectorstore.repair import RepairReport, repair_folder
from vectorstore.types import Hit, Metric, NewRecord, Record

_RANGE_START = 128  # neighbours asked for first by a search for all above a score

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@final
class VectorStore(StoreHandle):
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
        check_string("encoder", encoder, optional=True)
        if encoder == "":
            raise InvalidArgument("encoder is empty; expected a string of at least one character")
        dim = None if dim is None else positive_int("dim", dim)
        metric = checked_metric(metric)
        auto = index == "auto"
        wanted = None if index is None or auto else chosen_config(index, IndexConfig(), 0)
        make_condition(None, None, dict.fromkeys(indexed))
        folder = Path(path)
        table = RecordTable(folder / RECORDS_FILE, encoder=encoder, dim=dim, metric=metric, readonly=readonly)
        store = cls(folder, table, readonly=readonly, auto=auto, mmap=mmap)
        try:
            if not readonly:
                store._declare(wanted, indexed)
        except BaseException:
            table.close()
            raise
        return store

    def add(self, records: Iterable[NewRecord] | NewRecord) -> list[str]:
        """Add records in one transaction and return their ids in order; when it returns, they are on the disk.

        Either all are added or, on any error, none.

        Raises:
            DuplicateId: an id is in the store or twice among `records`.
            EncoderMismatch, DimensionMismatch, InvalidVector: a vector does not belong here.
            InvalidRecord: not a `NewRecord`, or `extra` was changed into something that is not JSON.
        """
        given = [records] if isinstance(records, NewRecord) else list(records)
        return self._insert(record_columns(given, self._table().meta, _now()))

    def add_batch(
        self,
        vectors: NDArray[np.float32],
        texts: Sequence[str],
        *,
        kind: str | Sequence[str],
        owner: str | Sequence[str] = "",
        ids: Sequence[str] | None = None,
        extras: Sequence[dict[str, Any]] | None = None,
    ) -> list[str]:
        """Add records given as columns, as `add` does but quicker, and return their ids.

        Args:
            vectors: float32 `[n, dim]`.
            texts: `n` strings.
            kind, owner: one for all, or `n` strings.
            ids: `n` names unique in the store; None draws them.
            extras: `n` JSON objects; None for empty ones.

        Raises:
            InvalidArgument: a column has another length or holds something else; otherwise as `add`.
        """
        columns = {"kind": kind, "owner": owner, "ids": ids, "extras": extras}
        return self._insert(batch_columns(vectors, texts, self._table().meta, created=_now(), **columns))

    def add_stream(
        self, records: Iterable[NewRecord], batch: int = 4096, on_batch: Callable[[int], None] | None = None
    ) -> int:
        """Add records as they come, `batch` to a transaction, and return how many.

        After each batch, which is then on the disk, `on_batch` is told the number added so far. On an error of `add`
        or of the iterable, the batches before stay.
        """
        batch = positive_int("batch", batch)
        iterator, count = iter(records), 0
        while part := list(islice(iterator, batch)):
            count += len(self.add(part))
            if on_batch is not None:
                on_batch(count)
        return count

    @overload
    def search(
        self,
        vector: Vector,
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
        vector: Matrix,
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
        vector: NDArray[np.float32],
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
            vector: float32 `[dim]`, or `[n, dim]` for n searches at once.
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
        k = positive_int("k", k)
        if not isinstance(diversity, int | float) or not 0 <= diversity <= 1:
            raise InvalidArgument(f"diversity is {diversity!r}; expected a number from 0 to 1")
        condition, left_out = make_condition(owner, kind, where), _ids("exclude", exclude)
        many = isinstance(vector, np.ndarray) and vector.ndim == 2
        check_vectors(vector, ndim=2 if many else 1, dim=self.dim, metric=self.metric, what="the query")
        queries = vector if many else vector[None]
        hits = self._hits(queries, k, condition, left_out, diversity)
        return hits if many else hits[0]

    def search_range(
        self,
        vector: Vector,
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
        if not isinstance(min_score, int | float) or min_score != min_score:
            raise InvalidArgument(f"min_score is {min_score!r}; expected a number")
        most = None if limit is None else positive_int("limit", limit)
        condition, left_out = make_condition(owner, kind, where), _ids("exclude", exclude)
        check_vectors(vector, ndim=1, dim=self.dim, metric=self.metric, what="the query")
        # The last of those found must be clearly below, beyond what the rounding of float32 could hide.
        below, k = min_score - 1e-5 * max(1.0, abs(min_score)), min(_RANGE_START, most or _RANGE_START)
        while True:
            hits = self._hits(vector[None], k, condition, left_out, 0.0)[0]
            if len(hits) < k or hits[-1].score < below or k == most:
                return [hit for hit in hits if hit.score >= min_score]
            k = 4 * k if most is None else min(4 * k, most)

    def get(self, id: str) -> Record:
        """Return the record with this id.

        Raises:
            RecordNotFound: there is none.
            InvalidArgument: `id` is not text.
        """
        check_string("id", id)
        with self._transaction() as table:
            return table.get([id])[0]

    def get_many(self, ids: Iterable[str]) -> list[Record]:
        """Return the records with these ids, in their order; errors as `get`."""
        wanted = _ids("ids", ids)
        with self._transaction() as table:
            return table.get(wanted)

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
        condition = make_condition(owner, kind, where)
        if order_by is not None:
            make_condition(None, None, {order_by: None})
        most = None if limit is None else positive_int("limit", limit)
        self._table()
        if order_by is None and not descending:
            return islice(self._pages(condition), most)
        return islice(self._ordered(condition, order_by, descending), most)

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        vector: NDArray[np.float32] | None = None,
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
        with self._deleting() as (table, gone):
            old = table.get([id])[0]
            new = NewRecord(
                id=id,
                text=old.text if text is None else text,
                vector=old.vector if vector is None else vector,
                owner=old.owner if owner is None else owner,
                kind=old.kind if kind is None else kind,
                extra=old.extra if extra is None else extra,
            )
            columns = record_columns([new], table.meta, old.created)
            gone += table.nums_of([id]).values()
            table.delete(gone)
            table.insert(columns)

    def delete(self, id: str | Iterable[str]) -> None:
        """Delete the record with this id, or those with these ids; when it returns, that is on the disk.

        Raises:
            RecordNotFound: one of them does not exist; then none is deleted.
            InvalidArgument: an id is not text.
        """
        if isinstance(id, str) or not isinstance(id, Iterable):
            check_string("id", id)
            id = [id]
        ids = _ids("id", id)
        with self._deleting() as (table, gone):
            found = table.nums_of(ids)
            for one in ids:
                if one not in found:
                    raise RecordNotFound(f"no record has the id {one!r}; nothing was deleted")
            gone += found.values()
            table.delete(gone)

    def delete_where(self, owner: Names = None, kind: Names = None, *, where: Where | None = None) -> int:
        """Delete the records that match and return how many.

        Raises:
            InvalidArgument: no filter is given, or one has the wrong type.
        """
        condition = make_condition(owner, kind, where)
        if condition is EVERYTHING:
            raise InvalidArgument("no filter was given, which would delete everything; give owner=, kind= or where=")
        with self._deleting() as (table, gone):
            gone += table.nums(condition).tolist()
            table.delete(gone)
        return len(gone)

    def optimize(self, kind: IndexConfig | IndexKind | str | None = None) -> None:
        """Choose a kind of index, build it and write its file. May take minutes; other calls of this store wait.

        An index that is of that kind already is extended by what came since, unless many of its vectors are deleted.

        Args:
            kind: a kind, a configuration, "auto" for the kind that suits the number of records (see
                `vectorstore.kinds`), or None for the one the store has.

        Raises:
            TooFewVectors: an ivfpq index cannot be trained on so few.
            InvalidArgument: a parameter is out of range or does not suit the width.
            MissingDependency: FAISS is needed and not installed.
        """
        with self._lock:
            with self._transaction() as table:
                present = self._index.config()
                config = chosen_config(kind, present, table.count())
                self._index.optimize(config)
            if not self.readonly:
                if config != present:
                    self._set_config(config)
                self._index.save()

    def compact(self) -> None:
        """Give back the space of deleted records: in the database, and in the index if it holds any."""
        with self._lock:
            with self._transaction(write=True):
                self._index.sync()
            if any(len(segment.dead) for segment in self._index.segments):
                self.rebuild()
            self._table().vacuum()

    def rebuild(self) -> None:
        """Build the index anew from the records, and its file too unless the store is read-only.

        Raises:
            StoreLocked: the lock that guards the file was not free in time.
            StorageFailure: the file could not be written.
        """
        with self._lock:
            with self._transaction():
                self._index.rebuild()
            if not self.readonly:
                self._index.save()

    def stats(self) -> StoreStats:
        """Return counts by owner and kind, the state of the index and the sizes of the files."""
        with self._transaction() as table:
            self._index.sync()
            return gather_stats(self.path, table, self._index)

    def verify(self) -> list[str]:
        """Check the file, every record, the index and its file; return what is wrong, one line each, if anything.

        Reads everything. Problems of the index alone are mended by `rebuild`, others by `repair`.
        """
        with self._lock:
            return find_problems(self.path, self._table(), self._index)

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
        condition = make_condition(owner, kind, where)
        return write_parquet(Path(file), self._table().meta, self._pages(condition))

    def import_parquet(self, file: str | Path) -> int:
        """Add the records of a Parquet file that `export_parquet` wrote, all or none, and return how many.

        Raises:
            EncoderMismatch, DimensionMismatch: the file is of another encoder or width.
            InvalidRecord: it has other columns, or a row that cannot be stored.
            DuplicateId: a record of it is in the store.
            MissingDependency: pyarrow is not installed.
            StorageFailure: the file cannot be read.
        """
        count = 0
        with self._transaction(write=True) as table:
            for columns in read_parquet(Path(file), table.meta):
                table.insert(columns)
                count += len(columns.ids)
        return count


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _ids(name: str, ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InvalidArgument(f"{name} is {ids!r} ({type(ids).__name__}); expected a collection of ids")
    found = list(dict.fromkeys(ids)) if name != "ids" else list(ids)
    for id in found:
        check_string(f"one of {name}", id)
    return found
