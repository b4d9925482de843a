"""Records with vectors, kept durably in SQLite and searched exactly with FAISS.

    with VectorStore.open("goals", encoder="my-encoder@1", dim=256) as store:
        store.add(NewRecord(kind="terminal", owner="Ada", text="She is home.", vector=z))
        hits = store.search(state, k=5, owner="Ada")

Modules, lowest first: `errors`, `types`, `vectors` (what the metrics mean), `database` (the SQLite file), `checks`
(of arguments), `records` (the rows), `index` (FAISS), `sync` (the index kept in step with the rows), `store`.
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
    NewerSchema,
    RecordNotFound,
    StorageFailure,
    StoreClosed,
    StoreCorrupt,
    StoreLocked,
    StoreNotFound,
    StoreReadOnly,
    VectorStoreError,
)
from vectorstore.store import VectorStore
from vectorstore.types import Hit, Metric, NewRecord, Record

__all__ = [
    "DimensionMismatch",
    "DuplicateId",
    "EmptyStore",
    "EncoderMismatch",
    "ForeignDatabase",
    "Hit",
    "InvalidArgument",
    "InvalidRecord",
    "InvalidVector",
    "Metric",
    "MetricMismatch",
    "NewRecord",
    "NewerSchema",
    "Record",
    "RecordNotFound",
    "StorageFailure",
    "StoreClosed",
    "StoreCorrupt",
    "StoreLocked",
    "StoreNotFound",
    "StoreReadOnly",
    "VectorStore",
    "VectorStoreError",
]
