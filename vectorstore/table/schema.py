"""The tables of a store, and whether those of a file are them: no more, no less, no trigger and no view.

A file that somebody else made could hold triggers, which delete records when one is added, or views in the place of
tables, which never end. SQLite keeps the text of every statement that made something; here they are compared.
"""

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from vectorstore.errors import ForeignDatabase, NewerSchema, StoreCorrupt
from vectorstore.filters import field_sql
from vectorstore.types import Metric, StoreMeta

SCHEMA_VERSION = 2
APPLICATION_ID = 0x56535452  # "VSTR", SQLite's own mark of whose file it is
FIELD_INDEX = "extra:"  # how the names of indices over fields of extra begin
IDENTITY = "identity"
# Of one text or vector. Larger ones are refused by SQLite when they are written, and when they are read.
MAX_BYTES = 2**27

_TABLES = {
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "records": """CREATE TABLE records (
        num INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        text TEXT NOT NULL,
        vector BLOB NOT NULL,
        created TEXT NOT NULL,
        extra TEXT NOT NULL,
        text_crc INTEGER NOT NULL,
        vector_crc INTEGER NOT NULL
    )""",
}
_INDEX = "CREATE INDEX records_owner_kind ON records (owner, kind)"
STATEMENTS = (f"PRAGMA application_id = {APPLICATION_ID}", *_TABLES.values(), _INDEX)
# Name, type and text of all that SQLite knows of, but for indices over fields.
_EXPECTED = {
    **{name: ("table", text) for name, text in _TABLES.items()},
    "records_owner_kind": ("index", _INDEX),
    "sqlite_autoindex_records_1": ("index", None),
    "sqlite_sequence": ("table", "CREATE TABLE sqlite_sequence(name,seq)"),
}


def secure(connection: sqlite3.Connection) -> None:
    """Set up a new connection so that a file's schema cannot call functions, nor a damaged page be taken for whole.

    Once the schema was compared it may call what ours calls: see `trust`.

    Raises:
        sqlite3.DatabaseError: the list of what there is cannot be read.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        # An index over a field, or over whatever calls a function: to be listed, it must be let in. Nothing calls it.
        if "unsafe use" not in str(error):
            raise
        trust(connection)


def trust(connection: sqlite3.Connection) -> None:
    """Let a schema that was compared call `json_extract`, as indices over fields do: SQLite 3.40 calls that unsafe."""
    connection.execute("PRAGMA trusted_schema = ON")


def field_index(name: str) -> str:
    """Return the statement, as SQLite keeps it, that makes the index over a field of `extra`."""
    return f'CREATE INDEX "{FIELD_INDEX}{name}" ON records ({field_sql(name)})'


def is_blank(connection: sqlite3.Connection) -> bool:
    """Return whether nothing was made in the file yet."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables == 0 and connection.execute("PRAGMA application_id").fetchone()[0] == 0


def check_schema(connection: sqlite3.Connection, file: Path) -> None:
    """See that the file's schema is this version's. Nothing but the list of what there is is read before that is known.

    Raises:
        ForeignDatabase: the file is another program's.
        NewerSchema: it is of a later version.
        StoreCorrupt: something is missing, was changed or was added.
    """
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark != APPLICATION_ID:
        raise ForeignDatabase(
            f"{file} is a SQLite file of another program (application id {mark:#x}, expected {APPLICATION_ID:#x}); "
            "give another folder"
        )
    found = {name: (kind, sql) for name, kind, sql in connection.execute("SELECT name, type, sql FROM sqlite_master")}
    if found.get("meta") == _EXPECTED["meta"]:
        _check_version(connection, file)
    missing = sorted(_EXPECTED.keys() - found.keys())
    if missing:
        raise StoreCorrupt(f"{file} is damaged: it has no {missing[0]}; repair() saves what can be saved")
    for name, (kind, sql) in found.items():
        if _EXPECTED.get(name) != (kind, sql) and not _is_field_index(name, kind, sql):
            raise StoreCorrupt(
                f"{file} holds a {kind} {name!r} that no store has; it was damaged, or made to do harm: do not use it, "
                "or let repair() take over its records"
            )


def is_ours(name: str, found: Mapping[str, tuple[str, str | None]]) -> bool:
    """Return whether what a schema has under a name (its type, its text) is what every store has."""
    return found.get(name) == _EXPECTED[name]


def _check_version(connection: sqlite3.Connection, file: Path) -> None:
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    try:
        version = int(row[0])
    except (TypeError, ValueError) as error:
        raise StoreCorrupt(f"{file}: the meta table does not tell its version; restore it from a copy") from error
    if version > SCHEMA_VERSION:
        raise NewerSchema(f"{file} has schema version {version}; this package knows {SCHEMA_VERSION}, upgrade it")
    if version < SCHEMA_VERSION:
        raise StoreCorrupt(
            f"{file} has schema version {version}, from before the first release; this package knows "
            f"{SCHEMA_VERSION}: build the store again"
        )


def _is_field_index(name: str, kind: str, sql: str | None) -> bool:
    try:
        return kind == "index" and name.startswith(FIELD_INDEX) and sql == field_index(name.removeprefix(FIELD_INDEX))
    except ValueError:  # no name of a field
        return False


def dump_identity(meta: StoreMeta) -> dict[str, str]:
    """Return the rows of the meta table that say what was fixed at creation: each value, and all of them again."""
    values = {"encoder": meta.encoder, "dim": str(meta.dim), "metric": meta.metric.value}
    again = {**values, "checksum": crc32(json.dumps(values).encode())}
    return {"schema_version": str(SCHEMA_VERSION), **values, IDENTITY: json.dumps(again)}


def parse_identity(values: dict[str, Any]) -> StoreMeta:
    """Return what the rows of the meta table say, if both places say the same.

    Raises:
        ValueError: they do not, or lack something.
    """
    names = ("encoder", "dim", "metric")
    lacking = [name for name in (*names, IDENTITY) if name not in values]
    if lacking:
        raise ValueError(f"it lacks {lacking[0]!r}")
    told = {name: values[name] for name in names}
    if dump_identity(parse_values(told))[IDENTITY] != values[IDENTITY]:
        raise ValueError("what it says of encoder, width and metric is not what it says elsewhere")
    return parse_values(told)


def likeliest_identity(values: dict[str, Any], dim: int | None) -> StoreMeta:
    """Return what was fixed at the creation of a store, from the rows of a meta table of which some are damaged.

    Args:
        values: those that could be read.
        dim: width of the vectors, as far as there are any.

    Raises:
        ValueError, TypeError, KeyError: too little is left.
    """
    try:
        again = json.loads(values[IDENTITY])
        if dump_identity(meta := parse_values(again))[IDENTITY] == values[IDENTITY]:
            return meta
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return parse_values(values if dim is None else {**values, "dim": dim})


def parse_values(values: dict[str, Any]) -> StoreMeta:
    """Return what one of the two places says.

    Raises:
        ValueError, TypeError, KeyError: nothing that could be.
    """
    encoder, dim = values["encoder"], int(values["dim"])
    if not isinstance(encoder, str) or not encoder or not 1 <= dim <= MAX_BYTES // 4:
        raise ValueError(f"it tells of vectors of width {dim} of encoder {encoder!r}")
    return StoreMeta(encoder, dim, Metric(values["metric"]))
