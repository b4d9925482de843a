"""Indices behind one contract: `base` (the contract), `exact` (numpy alone), `flat`, `hnsw`, `ivfpq` (FAISS).

A back end numbers its vectors 0, 1, 2, ... in the order in which they came; what they belong to, which of them are
deleted, and in which file it is kept is known above. FAISS is imported when the first back end of it is made.
"""

from vectorstore.errors import MissingDependency
from vectorstore.index.backends.base import Backend, Mask
from vectorstore.index.config import IndexConfig, IndexKind
from vectorstore.types import Metric

__all__ = ["Backend", "Mask", "make_backend"]


def make_backend(config: IndexConfig, dim: int, metric: Metric, count: int = 0) -> Backend:
    """Return an empty back end for vectors of width `dim`, about `count` of them.

    Without FAISS, a flat index is numpy's.

    Raises:
        InvalidArgument: a parameter does not suit the width.
        TooFewVectors: the kind is trained, and `count` is too few to train it.
        MissingDependency: the kind needs FAISS, which is not installed.
    """
    try:
        if config.kind is IndexKind.HNSW:
            from vectorstore.index.backends.hnsw import HNSWIndex

            return HNSWIndex(dim, metric, config)
        if config.kind is IndexKind.IVFPQ:
            from vectorstore.index.backends.ivfpq import IVFPQIndex

            return IVFPQIndex(dim, metric, config, count)
        from vectorstore.index.backends.flat import FlatIndex

        return FlatIndex(dim, metric)
    except ImportError as error:
        if config.kind is not IndexKind.FLAT:
            raise MissingDependency(
                f"an index of kind {config.kind} needs FAISS, which cannot be imported ({error}); "
                "pip install faiss-cpu, or keep kind flat"
            ) from error
    from vectorstore.index.backends.exact import NumpyIndex

    return NumpyIndex(dim, metric)
