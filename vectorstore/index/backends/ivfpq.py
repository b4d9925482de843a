"""Short codes in inverted lists: FAISS's IVF-PQ, for collections whose vectors do not fit the memory."""

from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from vectorstore.errors import InvalidArgument, TooFewVectors
from vectorstore.index.backends.base import Backend, Mask
from vectorstore.index.backends.faiss_io import selector, write
from vectorstore.index.config import IndexConfig
from vectorstore.types import Metric

# FAISS's own advice: with fewer vectors per centroid than this, the centroids are noise.
_PER_CENTROID = 39
_ENOUGH_PER_CENTROID = 64  # more make the training longer, and hardly better


@final
class IVFPQIndex(Backend):
    """Approximate and small. Candidates are `rerank` times as many as asked for, to be ranked with the true vectors.

    Under cosine the vectors have unit length, so their squared distances rank as their cosines do; both metrics
    therefore use FAISS's l2.
    """

    fold_limit = 5000

    def __init__(self, dim: int, metric: Metric, config: IndexConfig, count: int, index: Any = None) -> None:
        """Make an untrained index for about `count` vectors, or wrap a FAISS one.

        Raises:
            InvalidArgument: `m` does not divide the width.
            TooFewVectors: `count` is too few to train on.
        """
        import faiss

        self.dim = dim
        self.metric = metric
        self._config = config
        if index is None:
            parts = config.m or max(part for part in range(1, max(dim // 4, 1) + 1) if dim % part == 0)
            if dim % parts:
                raise InvalidArgument(f"m is {parts}; expected a divisor of the width {dim}, or 0 for one that fits")
            needed = _PER_CENTROID * max(config.nlist, 2**config.nbits)
            if count < needed:
                raise TooFewVectors(
                    f"an ivfpq index with nlist={config.nlist} and nbits={config.nbits} is trained on at least "
                    f"{needed} vectors; the store holds {count}. Keep kind flat or hnsw, or give smaller parameters"
                )
            lists = config.nlist or max(1, min(round(2 * count**0.5), count // _PER_CENTROID))
            quantizer: Any = faiss.IndexFlatL2(dim)
            index = faiss.IndexIVFPQ(quantizer, dim, lists, parts, config.nbits)
            index.own_fields = True
            quantizer.this.disown()
            index.cp.max_points_per_centroid = index.pq.cp.max_points_per_centroid = _ENOUGH_PER_CENTROID
            index.pq.cp.niter = 10
        self._faiss = index
        self.trained_on = _ENOUGH_PER_CENTROID * max(index.nlist, index.pq.ksub)

    def configure(self, config: IndexConfig) -> None:
        """Search with the parameters of another configuration, which must be built alike."""
        self._config = config

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self._faiss.ntotal

    def train(self, sample: NDArray[np.float32]) -> None:
        """Learn the lists and the codes from `sample [s, dim]`; k-means starts from a fixed seed."""
        self._faiss.train(sample)

    def add(self, rows: NDArray[np.float32]) -> None:
        """Append `rows [n, dim]` as codes."""
        self._faiss.add(rows)

    def keep(self, alive: NDArray[np.bool_]) -> bool:
        """Say that positions, which are the ids in the lists, cannot be renumbered."""
        return False

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None) -> NDArray[np.int64]:
        """Return the positions `[n, rerank * k]` of the nearest codes in the lists that are read.

        Under a mask more lists are read, by the root of how much it forbids.
        """
        import faiss

        shortlist = min(k * self._config.rerank, len(self) if mask is None else mask.count)
        probe = self._config.nprobe or max(8, self._faiss.nlist // 32)
        if mask is not None:
            probe = round(probe * (mask.size / mask.count) ** 0.5)
        swig: Any = faiss
        params = swig.SearchParametersIVF(
            nprobe=min(probe, self._faiss.nlist), sel=None if mask is None else selector(mask)
        )
        return self._faiss.search(queries, shortlist, params=params)[1]

    def rows(self, positions: NDArray[np.int64]) -> None:
        """Say that only codes are kept."""
        return None

    def memory(self) -> int:
        """Return the bytes of the codes, their positions, the centroids and the code books."""
        index = self._faiss
        return len(self) * (index.code_size + 8) + 4 * self.dim * (index.nlist + index.pq.ksub)

    def save(self, file: Path, nums: NDArray[np.int64]) -> str:
        """Write a FAISS file; return its SHA-256."""
        return write(self._faiss, file, nums)
