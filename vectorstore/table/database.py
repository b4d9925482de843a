"""The SQLite file of a store: opening, creating, recognising and locking it.

WAL mode with `synchronous=FULL`: a committed transaction survives a kill and a power cut. Nothing is written to a file
before it is known to be a store of this version, or blank.
"""

import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vectorstore.errors import (
    DimensionMismatch,
    EncoderMismatch,
    InvalidRecord,
    MetricMismatch,
    StorageFailure,
    StoreCorrupt,
    StoreLocked,
    StoreNotFound,
    StoreReadOnly,
    VectorStoreError,
)
from vectorstore.files import check_files
from vectorstore.table.schema import (
    MAX_BYTES,
    STATEMENTS,
    check_schema,
    dump_identity,
    is_blank,
    parse_identity,
    secure,
    trust,
)
from vectorstore.types import Metric, StoreMeta

BUSY_TIMEOUT_S = 5.0
_PAUSE_S = 0.01

# Pages of 4 KiB that the log may hold before they are copied into the file: rarer copies make large additions quicker.
CHECKPOINT_PAGES = 16_000
CACHE_KIB = 65_536


def open_database(
    file: Path, *, encoder: str | None, dim: int | None, metric: Metric, readonly: bool
) -> tuple[sqlite3.Connection, StoreMeta]:
    """Open the SQLite file, or create it when both `encoder` and `dim` are given and it is not `readonly`.

    Raises:
        StoreNotFound: no store is there, and none was to be created.
        EncoderMismatch, DimensionMismatch, MetricMismatch: the store was created with other values.
        StoreCorrupt, ForeignDatabase, NewerSchema, StoreLocked, StorageFailure: see `vectorstore.errors`.
    """
    missing = f"no store at {file.parent}; " + (
        "a store opened with readonly=True must exist" if readonly else "give encoder= and dim= to create one"
    )
    with translated(file):
        check_files(file.parent, written=not readonly)
        new = None
        if encoder is not None and dim is not None and not readonly:
            new = StoreMeta(encoder, dim, metric)
            file.parent.mkdir(parents=True, exist_ok=True)
        elif not file.is_file():
            raise StoreNotFound(missing)
        connection = _connect(file, "ro" if readonly else "rwc" if new else "rw")
        try:
            secure(connection)
            if is_blank(connection):
                if new is None:
                    raise StoreNotFound(missing)
                _create(connection, file, new)
            check_schema(connection, file)
            trust(connection)
            meta = _read_meta(connection, file)
            _check_meta(meta, file, encoder, dim, metric)
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            if not readonly:
                _make_durable(connection, file)
        except BaseException:
            connection.close()
            raise
    return connection, meta


@contextmanager
def transaction(connection: sqlite3.Connection, file: Path, *, write: bool = False) -> Iterator[None]:
    """One transaction: a consistent view, and with `write` the write lock; rolled back if the body raises.

    Raises:
        StoreLocked: the write lock was not free within `BUSY_TIMEOUT_S` seconds.
    """
    with translated(file):
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into those of this package."""
    try:
        yield
    except sqlite3.Error as error:
        # Extended codes carry the primary code in their low byte. Errors of the Python module itself have none: those
        # of a connection that is in use are of class ProgrammingError, and a text that is not UTF-8 is the other.
        undecodable = type(error) is sqlite3.OperationalError and not hasattr(error, "sqlite_errorcode")
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT if undecodable else sqlite3.SQLITE_INTERNAL)
        code &= 0xFF
        if code == sqlite3.SQLITE_TOOBIG:
            raise InvalidRecord(f"{file}: a text or vector of more than {MAX_BYTES >> 20} MiB; cut it") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreLocked(
                f"{file} is locked by another writer, for longer than {BUSY_TIMEOUT_S:g} s ({error}); "
                "wait for it to finish, or open with readonly=True to read"
            ) from error
        # SQLITE_ERROR: a statement of ours that does not fit the tables, so the tables are not as we made them.
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise StoreCorrupt(
                f"{file} is damaged or is no SQLite file ({error}); restore it from a copy, or see what repair() saves"
            ) from error
        if code == sqlite3.SQLITE_READONLY:
            raise StoreReadOnly(f"{file} cannot be written ({error}); open it with readonly=True to read it") from error
        raise StorageFailure(f"{file}: {error}; expected a readable file and a writable disk with space") from error
    except UnicodeDecodeError as error:  # of a name in the schema
        raise StoreCorrupt(f"{file} is damaged ({error}); repair() saves what can be saved") from error
    except OSError as error:
        if isinstance(error, VectorStoreError):
            raise
        raise StorageFailure(f"{file.parent}: {error}; expected a folder that can be read and written") from error


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    wal = file.with_name(file.name + "-wal")
    waiting = wal.exists() and wal.stat().st_size > 0
    if mode == "ro" and not waiting and not os.access(file.parent, os.W_OK):
        # Even readers of a WAL file make a lock file next to it. Where that is not allowed, and no log is waiting,
        # the file is read as it stands.
        uri += "&immutable=1"
    # The store serialises its calls with a lock, so the connection may cross threads.
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _create(connection: sqlite3.Connection, file: Path, meta: StoreMeta) -> None:
    values = dump_identity(meta) | {"revision": uuid.uuid4().hex}
    with transaction(connection, file, write=True):
        if not is_blank(connection):  # another process created it before the lock was ours
            return
        for statement in STATEMENTS:
            connection.execute(statement)
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", values.items())
    if os.name == "posix":  # a new name in a folder is durable only when the folder is synced
        for folder in (file.parent, file.parent.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _read_meta(connection: sqlite3.Connection, file: Path) -> StoreMeta:
    values = dict(connection.execute("SELECT key, value FROM meta"))
    try:
        return parse_identity(values)
    except (ValueError, TypeError) as error:
        raise StoreCorrupt(
            f"{file}: the meta table is damaged: {error}; repair() saves what can be saved, or restore it from a copy"
        ) from error


def _check_meta(meta: StoreMeta, file: Path, encoder: str | None, dim: int | None, metric: Metric) -> None:
    if encoder is not None and encoder != meta.encoder:
        raise EncoderMismatch(
            f"{file} holds vectors of encoder {meta.encoder!r}, not of {encoder!r}; "
            "vectors of two encoders cannot be compared, use one store for each"
        )
    if dim is not None and dim != meta.dim:
        raise DimensionMismatch(f"{file} holds vectors of width {meta.dim}; dim={dim} was asked for")
    # Cosine is the default of `open`, so it cannot be told from "whatever the store has".
    if metric is not meta.metric and metric is not Metric.COSINE:
        raise MetricMismatch(f"{file} was created with metric {meta.metric}; {metric} was asked for, use another store")


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Switch to a log; returns the mode that is then in force.

    Where several processes switch a new file at once, SQLite does not wait: it says at once that the file is busy.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)


def _make_durable(connection: sqlite3.Connection, file: Path) -> None:
    mode = _write_ahead(connection)
    if mode != "wal":
        raise StorageFailure(f"{file}: journal mode is {mode}, expected wal; is it on a network file system?")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
