"""What is in a store, and what is wrong with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vectorstore.checks import check_vectors
from vectorstore.errors import InvalidVector, StoreCorrupt
from vectorstore.files import file_hash
from vectorstore.index.config import IndexConfig
from vectorstore.index.file import STAMP_KEY, read_stamp
from vectorstore.index.scores import indexed_rows
from vectorstore.index.sync import SyncedIndex
from vectorstore.table.checksums import bytes_checksum, vector_problem
from vectorstore.table.records import RecordTable, vectors_of

_TEXTS = ("id", "kind", "owner", "text", "created", "extra")
_TYPES = {**dict.fromkeys(_TEXTS, "text"), "vector": "blob", "text_crc": "integer", "vector_crc": "integer"}
# Texts as bytes: what is not UTF-8 could not be read otherwise, and would hide the rows behind it.
_TYPED = " AND ".join(f"typeof({name}) = '{kind}'" for name, kind in _TYPES.items())
_BLOBS = ", ".join(f"CAST({name} AS BLOB)" for name in _TEXTS)
_CHECKED = f"SELECT num, {_TYPED}, json_valid(extra), {_BLOBS}, vector, text_crc, vector_crc FROM records ORDER BY num"
_AT_ONCE = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreStats:
    """Figures of a store.

    Attributes:
        records: how many there are.
        kinds, owners: how many of each kind and of each owner.
        fields: fields of `extra` that SQLite indexes.
        index: the configuration that was chosen.
        built: vectors in the part of the index that is of the chosen kind.
        later: vectors that came since, compared one by one; `optimize` takes them in.
        tombstones: deleted vectors that the index still holds; `compact` drops them.
        index_memory: bytes of the index in memory, or mapped.
        database_bytes: size of the SQLite file and its log.
        index_bytes: size of the index file, 0 if there is none.
        bytes_per_vector: all files, per record.
    """

    records: int
    kinds: dict[str, int]
    owners: dict[str, int]
    fields: list[str]
    index: IndexConfig
    built: int
    later: int
    tombstones: int
    index_memory: int
    database_bytes: int
    index_bytes: int
    bytes_per_vector: float


def gather_stats(folder: Path, table: RecordTable, index: SyncedIndex) -> StoreStats:
    """Return the figures of a store whose index is in step; inside a transaction."""
    kinds: dict[str, int] = {}
    owners: dict[str, int] = {}
    for owner, kind, count in table.groups():
        kinds[kind] = kinds.get(kind, 0) + count
        owners[owner] = owners.get(owner, 0) + count
    records = sum(kinds.values())
    config, segments = index.config(), index.segments
    stamp = read_stamp(table)
    database = _size(table.file) + _size(table.file.with_name(table.file.name + "-wal"))
    saved = 0 if stamp is None else _size(folder / stamp["file"])
    return StoreStats(
        records=records,
        kinds=dict(sorted(kinds.items())),
        owners=dict(sorted(owners.items())),
        fields=table.indexed_fields(),
        index=config,
        built=len(index) - index.beside,
        later=index.beside,
        tombstones=sum(len(segment.dead) for segment in segments),
        index_memory=sum(segment.backend.memory() for segment in segments),
        database_bytes=database,
        index_bytes=saved,
        bytes_per_vector=(database + saved) / max(records, 1),
    )


def find_problems(folder: Path, table: RecordTable, index: SyncedIndex) -> list[str]:
    """Return what is wrong with the database, the rows, the index and its file, one line each."""
    problems: list[str] = []
    try:
        with table.transaction():
            for problem in row_problems(table):
                problems.append(problem)  # one by one: the next may be an error, and those before it stand
            index.config()
            if not problems:
                index.sync()
                problems += _index_problems(table, index)
            problems += _file_problems(folder, table)
    except StoreCorrupt as error:
        problems.append(str(error))
    return problems


def row_problems(table: RecordTable) -> Iterator[str]:
    """Yield what is wrong with the database and the rows, one line each; inside a transaction."""
    yield from (line for (line,) in table.statement("PRAGMA integrity_check") if line != "ok")
    dim, metric = table.meta.dim, table.meta.metric
    rows = table.statement(_CHECKED)
    while part := list(islice(rows, _AT_ONCE)):
        good: list[tuple[int, bytes]] = []
        for num, typed, valid, *texts, vector, text_crc, vector_crc in part:
            problem = vector_problem(vector, vector_crc, dim) if typed else "has a column of the wrong type"
            if typed and bytes_checksum(texts) != text_crc:
                problem = "is damaged: the checksum of its text does not match"
            if problem is None and not valid:
                problem = "has an extra that is not JSON"
            if problem is not None:
                yield f"row {num} (id {(texts[0] or b'').decode(errors='replace')!r}) {problem}"
            else:
                good.append((num, vector))
        vectors = vectors_of((vector for _, vector in good), dim)
        try:
            check_vectors(vectors, ndim=2, dim=dim, metric=metric, what="")
        except InvalidVector:
            for (num, _), row in zip(good, vectors, strict=True):
                try:
                    check_vectors(row, ndim=1, dim=dim, metric=metric, what="its vector")
                except InvalidVector as error:
                    yield f"row {num}: {error}"


def _index_problems(table: RecordTable, index: SyncedIndex) -> list[str]:
    held = np.concatenate([segment.alive_nums() for segment in index.segments])
    present = table.nums()
    if not np.array_equal(held, present):
        orphans, missing = np.setdiff1d(held, present), np.setdiff1d(present, held)
        return [
            f"the index holds {len(held)} vectors under other numbers than the {len(present)} records "
            f"({len(orphans)} without a record, {len(missing)} records without a vector)"
        ]
    problems: list[str] = []
    for nums, rows in table.vectors():
        expected = indexed_rows(rows, table.meta.metric)
        for segment in index.segments:
            positions = segment.positions(nums)
            here = np.isin(nums, segment.nums[positions])
            found = segment.backend.rows(positions) if len(positions) else None
            if found is not None:
                different = nums[here][(found != expected[here]).any(axis=1)]
                problems += [f"the index holds another vector than the record in row {num}" for num in different]
    return problems


def _file_problems(folder: Path, table: RecordTable) -> list[str]:
    stamp = read_stamp(table)
    if stamp is None:
        lost = table.value(STAMP_KEY) is not None
        return ["what is noted of the index file is damaged; rebuild() writes it again"] if lost else []
    file = folder / stamp["file"]
    try:
        good = file_hash(file) == stamp["sha256"]
    except OSError as error:
        return [f"the index file cannot be read ({error}); rebuild() writes it again"]
    return [] if good else [f"the index file {file.name} is damaged; rebuild() writes it again"]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
