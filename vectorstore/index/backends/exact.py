"""The exact index in numpy alone: the reference for the others, and what is used where FAISS is not installed."""

import hashlib
import io
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from vectorstore.index.backends.base import Backend, Mask
from vectorstore.index.config import IndexConfig
from vectorstore.types import Metric

_BLOCK = 65_536  # rows compared at once; bounds the memory of the differences


@final
class NumpyIndex(Backend):
    """Compares every vector, in float32 under cosine and in float64 under l2."""

    fold_limit = 2**62
    suffix = ".npz"

    def __init__(self, dim: int, metric: Metric) -> None:
        """Make an empty index."""
        self.dim = dim
        self.metric = metric
        self._buffer = np.empty((0, dim), np.float32)
        self._count = 0

    def configure(self, config: IndexConfig) -> None:
        """A search through all vectors has no parameters."""

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self._count

    def train(self, sample: NDArray[np.float32]) -> None:
        """Nothing to learn."""

    def add(self, rows: NDArray[np.float32]) -> None:
        """Append `rows [n, dim]`."""
        end = self._count + len(rows)
        if end > len(self._buffer):
            grown = np.empty((max(end, 2 * len(self._buffer)), self.dim), np.float32)
            grown[: self._count] = self._buffer[: self._count]
            self._buffer = grown
        self._buffer[self._count : end] = rows
        self._count = end

    def keep(self, alive: NDArray[np.bool_]) -> bool:
        """Drop the positions that are not `alive`."""
        self._buffer = self._buffer[: self._count][alive]
        self._count = len(self._buffer)
        return True

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None) -> NDArray[np.int64]:
        """Return the positions `[n, k]` of the nearest, nearest first, equals in order."""
        positions = self._allowed(mask)
        found = np.full((len(queries), k), -1, np.int64)
        for i, query in enumerate(queries):
            best = np.argsort(-self._scores(query, positions), kind="stable")[:k]
            found[i, : len(best)] = positions[best]
        return found

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors `[p, dim]`."""
        return self._buffer[: self._count][positions]

    def memory(self) -> int:
        """Return the bytes of the vectors."""
        return self._count * self.dim * 4

    def save(self, file: Path, nums: NDArray[np.int64]) -> str:
        """Write the arrays in numpy's format; return the SHA-256 of the file."""
        stream = io.BytesIO()
        np.savez(stream, nums=nums, rows=self._buffer[: self._count])
        content = stream.getvalue()
        file.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def _allowed(self, mask: Mask | None) -> NDArray[np.int64]:
        return np.arange(self._count) if mask is None else np.flatnonzero(mask.allowed())

    def _scores(self, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float64]:
        parts = [np.empty(0)]
        for start in range(0, len(positions), _BLOCK):
            rows = self._buffer[positions[start : start + _BLOCK]]
            if self.metric is Metric.COSINE:
                parts.append((rows @ query).astype(np.float64))
            else:
                parts.append(-np.linalg.norm(rows - query.astype(np.float64), axis=1))
        return np.concatenate(parts)


def read_exact(file: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the vectors `[n, dim]` and the row numbers `[n]` that `NumpyIndex.save` wrote.

    Raises:
        OSError, ValueError, KeyError: the file is missing or something else.
    """
    with np.load(file) as arrays:
        return arrays["rows"], arrays["nums"]
