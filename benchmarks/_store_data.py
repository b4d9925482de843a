"""Vectors and bare FAISS indices for the benchmark of the store."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from vectorstore import IndexConfig, IndexKind

Rows = NDArray[np.float32]


def clustered(count: int, dim: int, rng: np.random.Generator, centres: Rows) -> Rows:
    """Vectors `[count, dim]` of a mixture of gaussians: a centre drawn evenly, plus noise of half its scale."""
    rows = np.empty((count, dim), np.float32)
    for start in range(0, count, 50_000):
        part = slice(start, min(start + 50_000, count))
        size = part.stop - part.start
        rows[part] = centres[rng.integers(len(centres), size=size)] + 0.5 * rng.standard_normal(
            (size, dim), dtype=np.float32
        )
    return rows


def unit(rows: Rows) -> Rows:
    """Rows at length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def selector(allowed: NDArray[np.bool_]) -> tuple[Any, NDArray[np.uint8]]:
    """FAISS's selector of positions, and the bits that it points to."""
    swig: Any = faiss
    bits = np.packbits(allowed, bitorder="little")
    return swig.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits)), bits


def search_parameters(config: IndexConfig, lists: int, sel: Any, stretch: float) -> Any:
    """What the store asks FAISS for (`vectorstore.index.backends`); under a filter of 1 in n, the root of n as much."""
    swig: Any = faiss
    if config.kind is IndexKind.HNSW:
        return swig.SearchParametersHNSW(efSearch=round(config.ef_search * stretch), sel=sel)
    if config.kind is IndexKind.IVFPQ:
        probe = config.nprobe or max(8, lists // 32)
        return swig.SearchParametersIVF(nprobe=min(round(probe * stretch), lists), sel=sel)
    return swig.SearchParameters(sel=sel)
