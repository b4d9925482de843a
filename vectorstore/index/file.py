"""The index file, and the stamp that says which file it is and what it holds.

The stamp is a row of SQLite's meta table. So file and stamp cannot disagree, whenever a process is killed: a file is
written under a new name, then one transaction makes it the one that counts. And a stamp is only ever met in the
database in which it was written, or in a later state of it: rows that came or went since are a matter of row numbers.
"""

import json
import logging
import os
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from vectorstore.files import INDEX_NAME, PART, file_hash
from vectorstore.index.backends import Backend, make_backend
from vectorstore.index.backends.exact import read_exact
from vectorstore.index.config import IndexConfig, IndexKind
from vectorstore.index.segment import Segment
from vectorstore.table.database import translated
from vectorstore.table.records import RecordTable

logger = logging.getLogger(__name__)

STAMP_KEY = "index_file"
_FORMAT = 1
# Mapped files above this size are hashed only if they were touched since they were written: below it, it costs less
# than a tenth of a second.
HASHED_BYTES = 2**26
_ABANDONED_S = 3600.0  # a part file that nobody has written to for so long is nobody's


def save_segment(folder: Path, table: RecordTable, segment: Segment, config: IndexConfig) -> None:
    """Write a segment into a new file, make it the index file, and remove older ones. Outside of a transaction.

    Raises:
        StoreLocked: the write lock was not free in time.
        StorageFailure: the file could not be written. Either way the older file stays the one that counts.
    """
    name = f"index-{uuid.uuid4().hex[:12]}{segment.backend.suffix}"
    part = folder / (name + PART)
    try:
        with translated(folder / name):
            digest = segment.backend.save(part, segment.nums)
            with part.open("rb+") as stream:
                os.fsync(stream.fileno())
        stamp = {
            "format": _FORMAT,
            "file": name,
            "size": part.stat().st_size,
            "sha256": digest,
            "count": len(segment.nums),
            "config": json.loads(config.dump()),
        }
        with table.transaction(write=True):
            os.replace(part, folder / name)
            stamp["seen"] = _seen((folder / name).stat())
            table.set_value(STAMP_KEY, json.dumps(stamp))
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    # Under the lock no other process is between its replacing and its commit. What it has replaced is its own to sweep.
    with table.transaction(write=True):
        sweep(folder, table)


def sweep(folder: Path, table: RecordTable) -> None:
    """Remove index files that do not count. Inside a write transaction."""
    stamp = read_stamp(table)
    for file in folder.iterdir():
        if not INDEX_NAME.fullmatch(file.name.removesuffix(PART)):
            continue
        current = stamp is not None and file.name == stamp["file"]
        busy = file.name.endswith(PART) and time.time() - file.stat().st_mtime < _ABANDONED_S
        if not current and not busy:
            file.unlink(missing_ok=True)


def read_stamp(table: RecordTable) -> dict[str, Any] | None:
    """Return the stamp, or None if no index was saved, or by another version."""
    text = table.value(STAMP_KEY)
    if text is None:
        return None
    try:
        stamp = json.loads(text)
        return stamp if stamp["format"] == _FORMAT and INDEX_NAME.fullmatch(stamp["file"]) else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def load_segment(folder: Path, table: RecordTable, *, mmap: bool) -> tuple[Segment, IndexConfig] | None:
    """Return the saved segment and its configuration, or None if there is none that is whole and readable.

    Its checksum is compared first. With `mmap`, where the vectors of a flat or HNSW index stay in the file, one above
    `HASHED_BYTES` is not read for that if nobody has touched it since it was written, by the file system's account.
    """
    stamp = read_stamp(table)
    if stamp is None:
        return None
    file = folder / stamp["file"]
    try:
        status = file.stat()
        if status.st_size != stamp["size"]:
            raise ValueError(f"it has {status.st_size} bytes, expected {stamp['size']}")
        untouched = mmap and status.st_size > HASHED_BYTES and stamp.get("seen") == _seen(status)
        if not untouched and file_hash(file) != stamp["sha256"]:
            raise ValueError("its checksum does not match")
        config = IndexConfig(**stamp["config"])
        segment = _read(file, table, config, mmap=mmap)
        if len(segment.nums) != stamp["count"]:
            raise ValueError(f"it holds {len(segment.nums)} vectors, expected {stamp['count']}")
        return segment, config
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError, ImportError) as error:
        # RuntimeError: FAISS cannot read it, for example because another version wrote it.
        logger.warning("%s cannot be used (%s); rebuilding it from the records", file, error)
        return None


def _seen(status: os.stat_result) -> list[int]:
    """What changes when a file is written, copied or put back: the last of these cannot be set by programs."""
    return [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _read(file: Path, table: RecordTable, config: IndexConfig, *, mmap: bool) -> Segment:
    dim, metric = table.meta.dim, table.meta.metric
    if file.suffix == ".npz":
        rows, nums = read_exact(file)
        backend = make_backend(config, dim, metric)
        backend.add(rows)
        return Segment(backend, nums)
    from vectorstore.index.backends.faiss_io import read

    mmap = mmap and config.kind is not IndexKind.IVFPQ  # codes are small, and FAISS maps them only in files of its own
    index, nums = read(file, mmap=mmap)
    if index.d != dim:
        raise ValueError(f"its vectors have width {index.d}, expected {dim}")
    backend: Backend
    if config.kind is IndexKind.HNSW:
        from vectorstore.index.backends.hnsw import HNSWIndex

        backend = HNSWIndex(dim, metric, config, index, mapped=mmap)
    elif config.kind is IndexKind.IVFPQ:
        from vectorstore.index.backends.ivfpq import IVFPQIndex

        backend = IVFPQIndex(dim, metric, config, len(nums), index)
    else:
        from vectorstore.index.backends.flat import FlatIndex

        backend = FlatIndex(dim, metric, index, mapped=mmap)
    return Segment(backend, np.asarray(nums, np.int64))
