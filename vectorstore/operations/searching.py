"""From a query to hits: the index brought into step, asked, and what it finds ranked by exact scores."""

from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectorstore.checks import as_float32, check_vectors, positive_int
from vectorstore.errors import EmptyStore, InvalidArgument
from vectorstore.filters import Condition
from vectorstore.index.ranking import rank
from vectorstore.index.scores import indexed_rows
from vectorstore.index.segment import NONE
from vectorstore.index.sync import SyncedIndex
from vectorstore.table.access import TableAccess
from vectorstore.table.row_cache import RowCache
from vectorstore.types import Hit

_POOL = 4  # candidates per hit among which diversity chooses
_RANGE_START = 128  # neighbours asked for first by a search for all above a score


@final
class Searcher:
    """Searches one store. Arguments and errors of its methods are those of `VectorStore`'s."""

    def __init__(self, access: TableAccess, index: SyncedIndex) -> None:
        """Begin with no rows in memory."""
        self._access = access
        self._index = index
        self._cache = RowCache(access.table())

    def nearest(
        self, vectors: ArrayLike, k: int, condition: Condition, exclude: list[str], diversity: float
    ) -> list[list[Hit]]:
        """Return the `k` nearest records of a condition to each of `vectors [n, dim]`, or to the one of `[dim]`.

        Raises:
            EmptyStore: the store holds no records at all.
            DimensionMismatch, InvalidVector: the vectors cannot be compared with the stored ones.
        """
        k = positive_int("k", k)
        if not isinstance(diversity, int | float) or not 0 <= diversity <= 1:
            raise InvalidArgument(f"diversity is {diversity!r}; expected a number from 0 to 1")
        given = as_float32(vectors, "the query")
        checked = self._checked(given, ndim=2 if given.ndim == 2 else 1)
        return self._hits(np.atleast_2d(checked), k, condition, exclude, diversity)

    def above(
        self,
        vector: ArrayLike,
        min_score: float,
        limit: int | None,
        condition: Condition,
        exclude: list[str],
    ) -> list[Hit]:
        """Return the records of a condition with a score of at least `min_score` for `vector [dim]`.

        Raises:
            EmptyStore, DimensionMismatch, InvalidVector: as `nearest`.
        """
        if not isinstance(min_score, int | float) or min_score != min_score:
            raise InvalidArgument(f"min_score is {min_score!r}; expected a number")
        most = None if limit is None else positive_int("limit", limit)
        query = self._checked(vector, ndim=1)
        # The last of those found must be clearly below, beyond what the rounding of float32 could hide.
        below, k = min_score - 1e-5 * max(1.0, abs(min_score)), min(_RANGE_START, most or _RANGE_START)
        while True:
            hits = self._hits(query[None], k, condition, exclude, 0.0)[0]
            if len(hits) < k or hits[-1].score < below or k == most:
                return [hit for hit in hits if hit.score >= min_score]
            k = 4 * k if most is None else min(4 * k, most)

    def _checked(self, vectors: ArrayLike, *, ndim: int) -> NDArray[np.float32]:
        meta = self._access.meta
        return check_vectors(vectors, ndim=ndim, dim=meta.dim, metric=meta.metric, what="the query")

    def _hits(
        self, queries: NDArray[np.float32], k: int, condition: Condition, exclude: list[str], diversity: float
    ) -> list[list[Hit]]:
        metric, encoder = self._access.meta.metric, self._access.meta.encoder
        asked = indexed_rows(queries, metric)
        with self._access.transaction() as table:
            self._index.sync()
            if not len(self._index):
                raise EmptyStore(f"{self._access.folder} holds no records; add some before searching")
            selection = self._index.selection(condition)
            excluded = np.fromiter(table.nums_of(exclude).values(), np.int64) if exclude else NONE
            pool = _POOL * k if diversity else k
            found = self._index.search(asked, pool, selection, excluded)
            return rank(queries, found, k, self._cache, metric, encoder, diversity=diversity)
