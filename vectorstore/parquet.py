"""Records as Parquet files, for other programs and for moving between stores.

Columns: id, kind, owner, text, created, extra (JSON) as strings, vector as a fixed-size list of float32. The encoder,
the width and the metric are in the file's metadata under `vectorstore`. pyarrow is imported at the first use.
"""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vectorstore.checks import Columns
from vectorstore.errors import (
    DimensionMismatch,
    EncoderMismatch,
    InvalidRecord,
    MissingDependency,
    StorageFailure,
    VectorStoreError,
)
from vectorstore.table.batches import batch_columns
from vectorstore.types import Record, StoreMeta

ROWS_PER_GROUP = 8192
_KEY = b"vectorstore"
_TEXTS = ("id", "kind", "owner", "text", "created", "extra")


def write_parquet(file: Path, meta: StoreMeta, records: Iterable[Record]) -> int:
    """Write records into a new file, a row group at a time, and return how many.

    The file appears under its name when it is complete.

    Raises:
        MissingDependency: pyarrow is not installed.
        StorageFailure: the file could not be written.
    """
    arrow, parquet = _arrow()
    schema = _schema(arrow, meta)
    part, iterator, count = file.with_name(file.name + ".part"), iter(records), 0
    try:
        part.unlink(missing_ok=True)  # it may be a link that somebody put there
        with parquet.ParquetWriter(part, schema) as writer:
            while group := list(islice(iterator, ROWS_PER_GROUP)):
                columns: dict[str, Any] = {name: [getattr(record, name) for record in group] for name in _TEXTS[:-1]}
                columns["extra"] = [json.dumps(record.extra) for record in group]
                flat = arrow.array(np.concatenate([record.vector for record in group]))
                columns["vector"] = arrow.FixedSizeListArray.from_arrays(flat, meta.dim)
                writer.write_table(arrow.table(columns, schema=schema))
                count += len(group)
        os.replace(part, file)
    except VectorStoreError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageFailure(f"{file}: {error}; expected a folder that can be written, with space") from error
    return count


def read_parquet(file: Path, meta: StoreMeta) -> Iterator[Columns]:
    """Yield what a file holds, a row group at a time, checked for a store of `meta`.

    Raises:
        MissingDependency: pyarrow is not installed.
        StorageFailure: the file cannot be read.
        EncoderMismatch, DimensionMismatch: it is of another encoder or width.
        InvalidRecord: it has other columns, or a row that cannot be stored.
    """
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(file) as source:
            _check_schema(file, source.schema_arrow, meta, _schema(arrow, meta))
            for batch in source.iter_batches(ROWS_PER_GROUP):
                yield _columns(file, batch, meta)
    except (OSError, arrow.ArrowInvalid) as error:
        if isinstance(error, VectorStoreError):
            raise
        raise StorageFailure(
            f"{file} cannot be read as Parquet ({error}); expected what export_parquet wrote"
        ) from error


def _columns(file: Path, batch: Any, meta: StoreMeta) -> Columns:
    if any(column.null_count for column in batch.columns):
        raise InvalidRecord(f"{file} holds empty cells; expected a value in every column of every row")
    vectors = batch.column("vector").flatten().to_numpy().astype(np.float32, copy=False).reshape(-1, meta.dim)
    texts = {name: batch.column(name).to_pylist() for name in _TEXTS}
    try:
        extras = [json.loads(text) for text in texts["extra"]]
    except ValueError as error:
        raise InvalidRecord(f"{file} holds an extra that is not JSON ({error})") from error
    return batch_columns(
        vectors,
        texts["text"],
        meta,
        kind=texts["kind"],
        owner=texts["owner"],
        ids=texts["id"],
        extras=extras,
        created=texts["created"],
    )


def _check_schema(file: Path, found: Any, meta: StoreMeta, expected: Any) -> None:
    try:
        identity = json.loads((found.metadata or {})[_KEY])
        encoder, dim = identity["encoder"], identity["dim"]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRecord(
            f"{file} does not say which encoder it is of; expected what export_parquet wrote"
        ) from error
    if encoder != meta.encoder:
        raise EncoderMismatch(
            f"{file} holds vectors of encoder {encoder!r}; this store holds those of {meta.encoder!r}"
        )
    if dim != meta.dim:
        raise DimensionMismatch(f"{file} holds vectors of width {dim}; this store holds width {meta.dim}")
    if found.names != expected.names or found.types != expected.types:
        raise InvalidRecord(f"{file} has other columns ({_listed(found)}); expected {_listed(expected)}")


def _listed(schema: Any) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in zip(schema.names, schema.types, strict=True))


def _schema(arrow: Any, meta: StoreMeta) -> Any:
    fields = [(name, arrow.string()) for name in _TEXTS]
    vector = ("vector", arrow.list_(arrow.float32(), meta.dim))
    identity = {"encoder": meta.encoder, "dim": meta.dim, "metric": meta.metric.value}
    return arrow.schema([*fields, vector], metadata={_KEY: json.dumps(identity).encode()})


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency(
            f"Parquet files need pyarrow, which cannot be imported ({error}); pip install 'steer[store]'"
        ) from error
    return pyarrow, pyarrow.parquet
