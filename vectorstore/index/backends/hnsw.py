"""A graph of neighbours: FAISS's HNSW over raw vectors."""

from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from vectorstore.index.backends.base import Backend, Mask
from vectorstore.index.backends.faiss_io import selector, write
from vectorstore.index.backends.flat import exact_search
from vectorstore.index.config import IndexConfig
from vectorstore.types import Metric

# A walk sees mostly vectors that a narrow mask forbids. Below this share, or number, comparing all allowed ones is both
# quicker and exact.
_NARROW_SHARE, _NARROW_COUNT = 0.02, 2000


@final
class HNSWIndex(Backend):
    """Approximate; holds the vectors, so that narrow masks are answered exactly."""

    fold_limit = 200

    def __init__(
        self, dim: int, metric: Metric, config: IndexConfig, index: Any = None, *, mapped: bool = False
    ) -> None:
        """Make an empty index, or wrap a FAISS one; a `mapped` one stays as it is."""
        import faiss

        self.dim = dim
        self.metric = metric
        self._config = config
        if index is None:
            measure = faiss.METRIC_INNER_PRODUCT if metric is Metric.COSINE else faiss.METRIC_L2
            index = faiss.IndexHNSWFlat(dim, config.M, measure)
        index.hnsw.efConstruction = config.ef_construction
        self._faiss = index
        if mapped:
            self.fold_limit = 0

    def configure(self, config: IndexConfig) -> None:
        """Search with the parameters of another configuration, which must be built alike."""
        self._config = config

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self._faiss.ntotal

    def train(self, sample: NDArray[np.float32]) -> None:
        """Nothing to learn."""

    def add(self, rows: NDArray[np.float32]) -> None:
        """Append `rows [n, dim]`, linking each to its neighbours."""
        self._faiss.add(rows)

    def keep(self, alive: NDArray[np.bool_]) -> bool:
        """Say that links cannot be cut."""
        return False

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None) -> NDArray[np.int64]:
        """Return the positions `[n, k]` of the nearest that the walk met.

        Under a mask the walk is longer, by the root of how much it forbids, so that enough allowed ones are met.
        """
        import faiss

        if mask is not None and mask.count <= max(_NARROW_COUNT, _NARROW_SHARE * mask.size):
            return exact_search(self._storage(), queries, k, mask, self.metric)
        stretch = 1.0 if mask is None else (mask.size / mask.count) ** 0.5
        swig: Any = faiss
        params = swig.SearchParametersHNSW(
            efSearch=max(k, round(self._config.ef_search * stretch)), sel=None if mask is None else selector(mask)
        )
        return self._faiss.search(queries, k, params=params)[1]

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors `[p, dim]`."""
        return self._storage().reconstruct_batch(positions)

    def memory(self) -> int:
        """Return the bytes of the vectors and the links."""
        graph = self._faiss.hnsw
        return len(self) * self.dim * 4 + 4 * graph.neighbors.size() + 8 * graph.offsets.size()

    def save(self, file: Path, nums: NDArray[np.int64]) -> str:
        """Write a FAISS file; return its SHA-256."""
        return write(self._faiss, file, nums)

    def _storage(self) -> Any:
        import faiss

        return faiss.downcast_index(self._faiss.storage)
