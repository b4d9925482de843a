"""Records with vectors, kept durably in SQLite and searched with FAISS.

    with VectorStore.open("goals", encoder="my-encoder@1", dim=256) as store:
        store.add(NewRecord(kind="terminal", owner="Ada", text="She is home.", vector=z))
        hits = store.search(state, k=5, owner="Ada")

Importing the package imports neither FAISS, which is loaded at the first search, nor torch, which is never used.
"""

from vectorstore.errors import (
    DimensionMismatch,
    DuplicateId,
    EmptyStore,
    EncoderMismatch,
    ForeignDatabase,
    InvalidArgument,
    InvalidRecord,
    InvalidVector,
    MetricMismatch,
    MissingDependency,
    NewerSchema,
    RecordNotFound,
    StorageFailure,
    StoreClosed,
    StoreCorrupt,
    StoreLocked,
    StoreNotFound,
    StoreReadOnly,
    TooFewVectors,
    VectorStoreError,
)
from vectorstore.index.config import IndexConfig, IndexKind
from vectorstore.inspection import StoreStats
from vectorstore.repair import RepairReport
from vectorstore.store import VectorStore
from vectorstore.types import Hit, Metric, NewRecord, Record

__all__ = [
    "DimensionMismatch",
    "DuplicateId",
    "EmptyStore",
    "EncoderMismatch",
    "ForeignDatabase",
    "Hit",
    "IndexConfig",
    "IndexKind",
    "InvalidArgument",
    "InvalidRecord",
    "InvalidVector",
    "Metric",
    "MetricMismatch",
    "MissingDependency",
    "NewRecord",
    "NewerSchema",
    "Record",
    "RecordNotFound",
    "RepairReport",
    "StorageFailure",
    "StoreClosed",
    "StoreCorrupt",
    "StoreLocked",
    "StoreNotFound",
    "StoreReadOnly",
    "StoreStats",
    "TooFewVectors",
    "VectorStore",
    "VectorStoreError",
]
