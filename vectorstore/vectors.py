"""What the metrics mean: normalisation and scores, in numpy alone.

The index is free to find neighbours as it likes; the scores that callers see are computed here from stored vectors.
"""

import numpy as np
from numpy.typing import NDArray

from vectorstore.types import Metric


def indexed_rows(rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Return what the index holds or is asked for `rows [n, d]`: unit length under cosine, unchanged under l2."""
    if metric is Metric.L2:
        return np.ascontiguousarray(rows)
    wide = rows.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def score_rows(query: NDArray[np.float32], rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """Return the scores `[n]` (float64, higher is nearer, see `Metric`) of `rows [n, d]` for `query [d]`."""
    a, b = query.astype(np.float64), rows.astype(np.float64)
    if metric is Metric.L2:
        return -np.linalg.norm(b - a, axis=1)
    # Row sums rather than a matrix product, so that a row's score does not depend on how many rows there are.
    cosines = (b * a).sum(axis=1) / (np.linalg.norm(b, axis=1) * np.linalg.norm(a))
    return np.clip(cosines, -1.0, 1.0)
