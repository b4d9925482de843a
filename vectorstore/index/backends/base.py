"""The contract of a back end, and the mask that limits what a search may find."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from vectorstore.index.config import IndexConfig
from vectorstore.types import Metric


@final
class Mask:
    """Which positions of a back end may be found.

    Attributes:
        size: number of positions, those of the back end.
        count: how many of them are allowed.
        bits: uint8 `[ceil(size / 8)]`, bit `i % 8` of byte `i // 8` for position `i`.
        selector: where a back end may keep what it makes of the bits; None until then.
    """

    def __init__(self, size: int, bits: NDArray[np.uint8], count: int) -> None:
        """Take the bits; `of` packs a boolean array."""
        self.size = size
        self.count = count
        self.bits = bits
        self.selector: Any = None

    @classmethod
    def of(cls, allowed: NDArray[np.bool_]) -> "Mask":
        """Return the mask of a boolean array `[size]`."""
        return cls(len(allowed), np.packbits(allowed, bitorder="little"), int(np.count_nonzero(allowed)))

    def without(self, positions: NDArray[np.int64]) -> "Mask":
        """Return a mask that also forbids `positions [p]`."""
        bits, positions = self.bits.copy(), np.unique(positions)
        flags = np.left_shift(1, positions & 7).astype(np.uint8)
        gone = int(np.count_nonzero(bits[positions >> 3] & flags))
        np.bitwise_and.at(bits, positions >> 3, ~flags)
        return Mask(self.size, bits, self.count - gone)

    def allowed(self) -> NDArray[np.bool_]:
        """Return the mask as a boolean array `[size]`."""
        return np.unpackbits(self.bits, count=self.size, bitorder="little").astype(bool)


class Backend(ABC):
    """Nearest neighbours of vectors that are known by their positions 0, 1, 2, ...

    Vectors and queries come at unit length under cosine. What is found is a set of candidates: the caller computes
    the scores and the order.

    Attributes:
        dim: width of the vectors.
        metric: how nearness is measured.
        fold_limit: how many vectors may be added in passing, by a search that must not take long; 0 if none ever.
        trained_on: how many vectors it is to be trained on before the first `add`; 0 if it needs no training.
        suffix: how the names of its files end.
    """

    dim: int
    metric: Metric
    fold_limit: int
    trained_on: int = 0
    suffix: str = ".faiss"

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of vectors."""

    @abstractmethod
    def configure(self, config: IndexConfig) -> None:
        """Search with the parameters of another configuration, which is built alike."""

    @abstractmethod
    def train(self, sample: NDArray[np.float32]) -> None:
        """Prepare for vectors like `sample [s, dim]`, if `trained_on` is not 0."""

    @abstractmethod
    def add(self, rows: NDArray[np.float32]) -> None:
        """Append `rows [n, dim]`, float32."""

    @abstractmethod
    def keep(self, alive: NDArray[np.bool_]) -> bool:
        """Drop what is not `alive [len(self)]` and number the rest anew; False, and nothing done, if it cannot."""

    @abstractmethod
    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None) -> NDArray[np.int64]:
        """Return for `queries [n, dim]` the positions `[n, c]` of at least their `k` nearest, -1 where there are fewer.

        `c` is `k` or, where candidates are many because they are inexact, more. `k` is at most the number allowed.
        """

    @abstractmethod
    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Return the vectors `[p, dim]` as they were added, or None if only codes are kept."""

    @abstractmethod
    def memory(self) -> int:
        """Return the bytes that the index takes, in memory or mapped."""

    @abstractmethod
    def save(self, file: Path, nums: NDArray[np.int64]) -> str:
        """Write the index and the row numbers `[len(self)]` of its positions; return the SHA-256 of the file.

        Raises:
            OSError: the file could not be written.
        """
