"""Keeping the index in step with the records.

The index is one or two segments in the order of the row numbers: perhaps one that was built or loaded, and a flat one
for what came later. So whatever kind was chosen, new rows are found at once, and where the built part is missing
everything is in the flat one: a search is exact then, and never waits for a graph to be built.
"""

import logging
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from vectorstore.errors import StoreCorrupt, TooFewVectors
from vectorstore.filters import EVERYTHING, Condition
from vectorstore.index.backends import make_backend
from vectorstore.index.config import IndexConfig
from vectorstore.index.file import load_segment, save_segment
from vectorstore.index.scores import indexed_rows
from vectorstore.index.segment import COMPACT_SHARE, NONE, Segment, Selection
from vectorstore.table.records import RecordTable

logger = logging.getLogger(__name__)

CONFIG_KEY = "index_config"
_REMEMBERED = 16_000_000  # row numbers of conditions that are remembered, eight bytes each
_MASK_NUMS = 65_536  # what a condition's masks take, in the same unit
_SAVE_SHARE = 0.05  # of rows that changed since the file was written, from which on closing writes it again
_FLAT = IndexConfig()


@final
class SyncedIndex:
    """The index of one table, made at the first `sync`. Call all but `save` inside a transaction of the table."""

    def __init__(self, folder: Path, table: RecordTable, *, mmap: bool = False) -> None:
        """Remember the folder of the index file and the table; nothing is read yet."""
        self._folder = folder
        self._table = table
        self._mmap = mmap
        self._segments: list[Segment] = []
        self._built = _FLAT  # configuration of the first segment
        self._revision = ""
        self._saved = False  # whether there is a file of the first segment, as it was `_changed` rows ago
        self._changed = 0
        self._selections: dict[Condition, Selection] = {}

    def __len__(self) -> int:
        """Return the number of vectors that are not deleted, as of the last `sync`."""
        return sum(segment.alive for segment in self._segments)

    @property
    def segments(self) -> list[Segment]:
        """The parts, as of the last `sync`."""
        return self._segments

    @property
    def built(self) -> IndexConfig:
        """The configuration of the first part."""
        return self._built

    @property
    def beside(self) -> int:
        """Number of vectors beside the first part, or in it where it is flat though another kind was chosen."""
        wanted = self.config().kind is self._built.kind
        return sum(segment.alive for segment in self._segments[1 if wanted else 0 :])

    def config(self) -> IndexConfig:
        """Return the configuration that the store was given; flat if none.

        Raises:
            StoreCorrupt: what is stored is no configuration.
        """
        text = self._table.value(CONFIG_KEY)
        try:
            return _FLAT if text is None else IndexConfig.parse(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise StoreCorrupt(f"{self._table.file}: the index configuration is damaged ({error})") from error

    def sync(self) -> None:
        """Bring the index into step with the present records: from the index file, and from the rows it lacks.

        Rows never change and row numbers only grow, so what is missing lies above the last one seen, and the rest can
        differ only by deletions, which show in the count.
        """
        table, revision = self._table, self._table.revision()
        if self._segments and self._revision == revision:
            return
        if not self._segments:
            loaded = load_segment(self._folder, table, mmap=self._mmap)
            self._saved, self._changed = loaded is not None, 0
            self._segments, self._built = ([loaded[0]], loaded[1]) if loaded else ([self._flat()], _FLAT)
        last = self._segments[-1]
        later = table.count(Condition("num > ?", (last.last,)))
        if later > last.backend.fold_limit:
            self._segments.append(self._flat(after=last.last))
            if not len(last.nums):
                self._segments.remove(last)
                self._built = _FLAT
        self._extend(self._segments[-1], after=last.last)
        if len(self) != table.count():
            present, before = table.nums(), len(self)
            for segment in self._segments:
                segment.keep(present)
            self._changed += before - len(self)
        self._revision = revision

    def forget(self, nums: list[int]) -> None:
        """Hide rows that this process deleted, which spares the next `sync` from looking for them."""
        for segment in self._segments:
            segment.kill(np.array(nums, np.int64))
        self._changed += len(nums)

    def selection(self, condition: Condition) -> Selection | None:
        """Return the rows of a condition, after `sync`; None for all rows."""
        if condition is EVERYTHING:
            return None
        selection = self._selections.pop(condition, None) or Selection()
        self._selections[condition] = selection  # the one used last is the last
        last = self._segments[-1].last
        if selection.seen < last:
            selection.extend(self._table.nums(condition, after=selection.seen), last)
        while len(self._selections) > 1 and self._remembered() > _REMEMBERED:
            oldest = self._selections.pop(next(iter(self._selections)))
            for segment in self._segments:
                segment.forget(oldest)
        return selection

    def search(
        self, queries: NDArray[np.float32], k: int, selection: Selection | None, excluded: NDArray[np.int64] = NONE
    ) -> NDArray[np.int64]:
        """Return row numbers `[n, c]` with the `k` nearest to each of `queries [n, dim]` among them, -1 for none."""
        found = [segment.search(queries, k, selection, excluded) for segment in self._segments if segment.alive]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def optimize(self, config: IndexConfig, *, anew: bool = False) -> None:
        """Make one segment of `config`: the first one, extended, if it is of it (unless `anew`), or a new one.

        Raises:
            TooFewVectors, InvalidArgument, MissingDependency: see `vectorstore.index.backends.make_backend`.
        """
        self.sync()
        first, table = self._segments[0], self._table
        same = config.built_like(self._built)
        usable = first.backend.fold_limit > 0 and len(first.dead) <= COMPACT_SHARE * len(first.nums)
        if anew or not (same and usable):
            backend = make_backend(config, table.meta.dim, table.meta.metric, len(self))
            if backend.trained_on:
                backend.train(self._sample(backend.trained_on))
            first, self._built, self._saved = Segment(backend), config, False
        elif config != self._built:
            first.backend.configure(config)
            self._built, self._saved = config, False
        self._segments, self._revision = [first], ""  # if this is interrupted, the next sync goes on from here
        self._extend(first, after=first.last)
        self._revision = table.revision()

    def rebuild(self) -> None:
        """Build the index of the store's configuration anew; a flat one where too few are left to train it on."""
        try:
            self.optimize(self.config(), anew=True)
        except TooFewVectors as error:
            logger.warning("%s; searches of %s are exact until then", error, self._folder)
            self.optimize(_FLAT, anew=True)

    def save(self, *, always: bool = True) -> None:
        """Write the first segment into the index file, if it is of the kind that the store was given.

        Without `always`, only if there is no file, or one that lacks more than a small share of the rows.

        Raises:
            StoreLocked: the write lock, which keeps two processes from saving at once, was not free in time.
            StorageFailure: the file could not be written.
        """
        if not self._segments:
            return
        with self._table.transaction():
            self.sync()
            wanted = self.config()
            first = self._segments[0]
        due = not self._saved or self._changed > _SAVE_SHARE * len(first.nums)
        if self._built.kind is wanted.kind and first.backend.fold_limit and (due or (always and self._changed)):
            save_segment(self._folder, self._table, first, self._built)
            self._saved, self._changed = True, 0

    def _extend(self, segment: Segment, after: int) -> None:
        metric = self._table.meta.metric
        for nums, rows in self._table.vectors(after=after):
            segment.add(nums, indexed_rows(rows, metric))
            if segment is self._segments[0]:
                self._changed += len(nums)

    def _remembered(self) -> int:
        return sum(len(known.nums) + _MASK_NUMS for known in self._selections.values())

    def _flat(self, after: int = 0) -> Segment:
        return Segment(make_backend(_FLAT, self._table.meta.dim, self._table.meta.metric), after=after)

    def _sample(self, count: int) -> NDArray[np.float32]:
        """At most `count` vectors of rows drawn evenly, as the index takes them."""
        present = self._table.nums()
        count = min(count, len(present))
        chosen = present[np.arange(count) * len(present) // count]
        parts = [rows[np.isin(nums, chosen)] for nums, rows in self._table.vectors()]
        return indexed_rows(np.concatenate(parts), self._table.meta.metric)
