"""Keeping an index in step with the records, and its cache file in step with the index."""

import logging
from pathlib import Path
from typing import Any, final

import numpy as np

from vectorstore.errors import VectorStoreError
from vectorstore.index import FlatIndex
from vectorstore.records import RecordTable
from vectorstore.vectors import indexed_rows

logger = logging.getLogger(__name__)

_STAMP_FORMAT = 1


@final
class SyncedIndex:
    """The index of one table, made at the first `sync`. Call all but `save` inside a transaction of the table."""

    def __init__(self, file: Path, table: RecordTable) -> None:
        """Remember the cache file and the table; nothing is read yet."""
        self._file = file
        self._table = table
        self._index: FlatIndex | None = None
        self._saved_revision = ""

    def sync(self) -> FlatIndex:
        """Return the index of the present records: from memory, from the cache file, or built from the records.

        Rows never change and row numbers only grow, so what is missing lies above the last one seen, and the rest can
        differ only by deletions, which show in the count.
        """
        table, meta, revision = self._table, self._table.meta, self._table.revision()
        if self._index is None:
            self._index = FlatIndex.load(self._file, self._stamp(), meta.dim, meta.metric)
            if self._index is None:
                self._index = FlatIndex(meta.dim, meta.metric)
            else:
                self._saved_revision = revision
        index = self._index
        if index.revision != revision:
            for nums, rows in table.vectors(after=index.last):
                index.add(nums, indexed_rows(rows, meta.metric))
            if len(index) != table.count():
                index.keep(table.nums())
            index.revision = revision
        return index

    def rebuild(self) -> None:
        """Forget the index and its cache file's contents, and build it from the records."""
        self._index = FlatIndex(self._table.meta.dim, self._table.meta.metric)
        self._saved_revision = ""
        self.sync()

    def save(self) -> None:
        """Write the cache file, unless no index was made or the file is of the present records already.

        Raises:
            StoreLocked: the write lock, which keeps two processes from saving at once, was not free in time.
            StorageFailure: the file could not be written.
        """
        if self._index is None:
            return
        with self._table.transaction(write=True):
            index = self.sync()
            if index.revision != self._saved_revision:
                index.save(self._file, self._stamp())
                self._saved_revision = index.revision

    def save_if_possible(self) -> None:
        """Do `save`, but only log a failure: the cache can always be rebuilt."""
        try:
            self.save()
        except VectorStoreError as error:
            logger.warning("%s was not saved (%s); it will be rebuilt from the records", self._file, error)

    def problems(self) -> list[str]:
        """Return where the index differs from the records, one line each; reads every record."""
        index, table = self.sync(), self._table
        problems: list[str] = []
        if not np.array_equal(np.sort(index.nums()), table.nums()):
            return [f"the index holds {len(index)} vectors under other numbers than the {table.count()} records"]
        for nums, rows in table.vectors():
            different = (index.rows(nums) != indexed_rows(rows, table.meta.metric)).any(axis=1)
            problems += [f"the index holds another vector than the record in row {num}" for num in nums[different]]
        return problems

    def _stamp(self) -> dict[str, Any]:
        table = self._table
        return {
            "format": _STAMP_FORMAT,
            "revision": table.revision(),
            "count": table.count(),
            "dim": table.meta.dim,
            "metric": table.meta.metric.value,
        }
