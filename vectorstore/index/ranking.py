"""From candidates to hits: exact scores, order, and diversity."""

import numpy as np
from numpy.typing import NDArray

from vectorstore.index.scores import score_pairs
from vectorstore.table.records import vectors_of
from vectorstore.table.row_cache import RowCache
from vectorstore.types import Hit, Metric, Record


def rank(
    queries: NDArray[np.float32],
    candidates: NDArray[np.int64],
    k: int,
    cache: RowCache,
    metric: Metric,
    encoder: str,
    *,
    diversity: float = 0.0,
) -> list[list[Hit]]:
    """Return for each of `queries [n, dim]` the best `k` of its `candidates [n, c]` (row numbers, -1 for none).

    Scores are computed in float64 from the stored vectors; equal scores come in insertion order. With `diversity`, the
    order is that of maximal marginal relevance instead. Inside a transaction of the table.
    """
    which, places = np.nonzero(candidates >= 0)
    nums = candidates[which, places]
    rows = cache.get(nums.tolist())
    dim = queries.shape[1]
    vectors = vectors_of([row[5] for row in rows], dim)
    scores = score_pairs(queries, which, vectors, metric)
    values = scores.tolist()
    if len(queries) == 1 and not diversity:  # what follows, with less to call: for one query that is what takes time
        best = sorted(zip([-value for value in values], nums.tolist(), range(len(rows)), strict=True))[:k]
        return [[Hit(Record(rows[i], encoder), values[i]) for _, _, i in best]]
    order = np.lexsort((nums, -scores, which))
    bounds = np.searchsorted(which, np.arange(len(queries) + 1)).tolist()
    hits: list[list[Hit]] = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        chosen = order[start:end]
        if diversity:
            picks = marginal_relevance(vectors[chosen], scores[chosen], k, diversity, metric)
            chosen = chosen[picks]
        hits.append([Hit(Record(rows[i], encoder), values[i]) for i in chosen[:k].tolist()])
    return hits


def marginal_relevance(
    vectors: NDArray[np.float32], scores: NDArray[np.float64], k: int, diversity: float, metric: Metric
) -> NDArray[np.intp]:
    """Return the order `[min(k, c)]` in which maximal marginal relevance picks from `vectors [c, dim]`, best first.

    Each pick has the highest `(1 - diversity) * score - diversity * (highest score to those picked)`; the first is the
    nearest (Carbonell and Goldstein 1998, with lambda = 1 - diversity).
    """
    picks: list[int] = []
    nearest = np.full(len(scores), -np.inf)
    left = np.ones(len(scores), np.bool_)
    for _ in range(min(k, len(scores))):
        gains = (1 - diversity) * scores - diversity * nearest if picks else scores
        best = int(np.argmax(np.where(left, gains, -np.inf)))
        picks.append(best)
        left[best] = False
        pairs = np.zeros(len(scores), np.intp)
        nearest = np.maximum(nearest, score_pairs(vectors[best : best + 1], pairs, vectors, metric))
    return np.array(picks, np.intp)
