"""What the metrics mean: normalisation and scores, in numpy alone.

The index is free to find neighbours as it likes; the scores that callers see are computed here from stored vectors.
"""

import numpy as np
from numpy.typing import NDArray

from vectorstore.types import Metric

_BLOCK = 256  # pairs scored at once: few enough to stay in the processor's cache


def indexed_rows(rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Return what the index holds or is asked for `rows [n, d]`: unit length under cosine, unchanged under l2."""
    if metric is Metric.L2:
        return np.ascontiguousarray(rows)
    wide = rows.astype(np.float64)
    wide /= np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return wide.astype(np.float32)


def score_pairs(
    queries: NDArray[np.float32], which: NDArray[np.intp], rows: NDArray[np.float32], metric: Metric
) -> NDArray[np.float64]:
    """Return the scores `[p]` (float64, higher is nearer, see `Metric`) of `rows [p, d]` for `queries[which] [p, d]`.

    Sums over rows rather than matrix products, so that the score of a pair does not depend on what else is asked.
    """
    a = queries.astype(np.float64)
    if metric is Metric.COSINE:
        a /= np.sqrt(np.einsum("nd,nd->n", a, a))[:, None]
    scores = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        b, c = rows[part].astype(np.float64), a[which[part]]
        if metric is Metric.L2:
            b -= c
            scores[part] = -np.sqrt(np.einsum("pd,pd->p", b, b))
        else:
            cosines = np.einsum("pd,pd->p", b, c) / np.sqrt(np.einsum("pd,pd->p", b, b))
            scores[part] = np.clip(cosines, -1.0, 1.0)
    return scores
