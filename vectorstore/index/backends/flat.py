"""The exact index of FAISS."""

from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from vectorstore.index.backends.base import Backend, Mask
from vectorstore.index.backends.faiss_io import selector, write
from vectorstore.index.config import IndexConfig
from vectorstore.types import Metric


@final
class FlatIndex(Backend):
    """Compares every vector in float32, the distance under l2 as a sum of squared differences."""

    fold_limit = 2**62

    def __init__(self, dim: int, metric: Metric, index: Any = None, *, mapped: bool = False) -> None:
        """Make an empty index, or wrap a FAISS one; a `mapped` one cannot change."""
        import faiss

        self.dim = dim
        self.metric = metric
        self._faiss = index or (faiss.IndexFlatIP(dim) if metric is Metric.COSINE else faiss.IndexFlatL2(dim))
        self._mapped = mapped
        if mapped:
            self.fold_limit = 0

    def configure(self, config: IndexConfig) -> None:
        """A search through all vectors has no parameters."""

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self._faiss.ntotal

    def train(self, sample: NDArray[np.float32]) -> None:
        """Nothing to learn."""

    def add(self, rows: NDArray[np.float32]) -> None:
        """Append `rows [n, dim]`."""
        self._faiss.add(rows)

    def keep(self, alive: NDArray[np.bool_]) -> bool:
        """Drop the positions that are not `alive`."""
        if self._mapped:
            return False
        dead = Mask.of(~alive)  # must outlive the selector, which points into it
        self._faiss.remove_ids(selector(dead))
        return True

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None) -> NDArray[np.int64]:
        """Return the positions `[n, k]` of the nearest."""
        return exact_search(self._faiss, queries, k, mask, self.metric)

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors `[p, dim]`."""
        return self._faiss.reconstruct_batch(positions)

    def memory(self) -> int:
        """Return the bytes of the vectors."""
        return len(self) * self.dim * 4

    def save(self, file: Path, nums: NDArray[np.int64]) -> str:
        """Write a FAISS file; return its SHA-256."""
        return write(self._faiss, file, nums)


def exact_search(
    flat: Any, queries: NDArray[np.float32], k: int, mask: Mask | None, metric: Metric
) -> NDArray[np.int64]:
    """Search a FAISS flat index, each query of a large batch alone where that is what keeps l2 exact."""
    import faiss

    swig: Any = faiss
    params = None if mask is None else swig.SearchParameters(sel=selector(mask))
    # From a number of queries on, which differs between releases, FAISS expands |x - y|^2 to use a matrix product. That
    # loses the digits that tell near neighbours apart.
    exact = metric is Metric.COSINE or len(queries) < faiss.cvar.distance_compute_blas_threshold
    if exact or len(queries) < 2:
        return flat.search(queries, k, params=params)[1]
    return np.concatenate([flat.search(query[None], k, params=params)[1] for query in queries])
