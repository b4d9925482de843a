"""The values that go into a store and come out of it."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectorstore.errors import InvalidRecord


class Metric(StrEnum):
    """How near two vectors are. Under both, a higher score is nearer.

    Attributes:
        COSINE: score is the cosine of the angle, in [-1, 1]. Length does not matter; the zero vector is refused.
        L2: score is minus the Euclidean distance, at most 0; 0 means identical.
    """

    COSINE = "cosine"
    L2 = "l2"


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """What is fixed when a store is created: encoder identity, vector width, metric."""

    encoder: str
    dim: int
    metric: Metric


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NewRecord:
    """A record as it is handed to `VectorStore.add`.

    Attributes:
        kind: what it is, for example "terminal" or "span"; a filter of searches.
        text: the text that the vector stands for.
        vector: `[dim]`, an array, a list or a tensor on the CPU, stored as float32 (the index normalises its own copy).
        owner: whose it is, for example a character's name; "" is nobody's; a filter of searches.
        id: a name unique in the store; None lets the store draw a random one.
        encoder: identity of the encoder that made `vector`; if given, it must be the store's. None vouches for it.
        extra: JSON object with string keys; what JSON would alter (tuples, NaN, integer keys) is refused.

    Raises:
        InvalidRecord: a field has the wrong type or cannot be stored unaltered.
    """

    kind: str
    text: str
    vector: ArrayLike
    owner: str = ""
    id: str | None = None
    encoder: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field but the vector, whose width only the store knows."""
        for name, optional in (("kind", False), ("text", False), ("owner", False), ("id", True), ("encoder", True)):
            value = getattr(self, name)
            if value is None and optional:
                continue
            if not isinstance(value, str):
                raise InvalidRecord(f"{name} is {value!r} ({type(value).__name__}); expected a string")
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InvalidRecord(f"{name} cannot be stored as UTF-8 ({error}); replace lone surrogates") from error
        for name in ("kind", "id"):
            if getattr(self, name) == "":
                raise InvalidRecord(f"{name} is empty; expected at least one character")
        dump_extra(self.extra)


Row = tuple[int, str, str, str, str, bytes, str, str, int, int]
"""A stored row: num, id, kind, owner, text, vector (float32, little-endian), created, extra (JSON), checksums of the
texts and of the vector (see `vectorstore.table.checksums`)."""


@final
class Record:
    """A stored record: the fields of `NewRecord`, completed. Read-only, but `vector` and `extra` are the caller's own.

    Two records are equal when all their fields are, the vectors bit for bit (NaN never occurs).

    Attributes:
        id: unique in the store.
        kind: what it is.
        owner: whose it is, "" if nobody's.
        text: the text that the vector stands for.
        vector: float32 `[dim]`, as given to `add`; made at the first use.
        encoder: identity of the encoder that made the vector.
        created: when it was added, UTC in ISO 8601 with microseconds.
        extra: JSON object; made at the first use.
    """

    # Searches make many of these and seldom look at all of each: the last two are set when they are asked for.
    __slots__ = ("_encoder", "_extra", "_row", "_vector")
    _extra: dict[str, Any]
    _vector: NDArray[np.float32]

    def __init__(self, row: Row, encoder: str) -> None:
        """Show a checked row of a store whose vectors are of `encoder`; made by the store."""
        self._row = row
        self._encoder = encoder

    @property
    def id(self) -> str:
        """Unique in the store."""
        return self._row[1]

    @property
    def kind(self) -> str:
        """What it is."""
        return self._row[2]

    @property
    def owner(self) -> str:
        """Whose it is, "" if nobody's."""
        return self._row[3]

    @property
    def text(self) -> str:
        """The text that the vector stands for."""
        return self._row[4]

    @property
    def vector(self) -> NDArray[np.float32]:
        """Float32 `[dim]`, as it was added."""
        try:
            return self._vector
        except AttributeError:
            self._vector = np.frombuffer(self._row[5], "<f4").astype(np.float32)
            return self._vector

    @property
    def encoder(self) -> str:
        """Identity of the encoder that made the vector."""
        return self._encoder

    @property
    def created(self) -> str:
        """When it was added, UTC in ISO 8601."""
        return self._row[6]

    @property
    def extra(self) -> dict[str, Any]:
        """JSON object."""
        try:
            return self._extra
        except AttributeError:
            self._extra = json.loads(self._row[7])
            return self._extra

    def __eq__(self, other: object) -> bool:
        """Compare all fields."""
        if not isinstance(other, Record):
            return NotImplemented
        names = ("id", "kind", "owner", "text", "encoder", "created", "extra")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return same and np.array_equal(self.vector, other.vector)

    def __hash__(self) -> int:
        """Hash the id, which is unique in a store."""
        return hash(self.id)

    def __repr__(self) -> str:
        """Show what tells it from others."""
        return f"Record(id={self.id!r}, kind={self.kind!r}, owner={self.owner!r}, text={self.text!r})"


class Hit(NamedTuple):
    """One search result, immutable.

    Attributes:
        record: the record found.
        score: higher is nearer; its range is the metric's (see `Metric`).
    """

    record: Record
    score: float


def dump_extra(extra: dict[str, Any]) -> str:
    """Return `extra` as JSON text.

    Raises:
        InvalidRecord: it is no dict, or reading the JSON back would not give an equal dict.
    """
    if type(extra) is dict and not extra:
        return "{}"
    if not isinstance(extra, dict):
        raise InvalidRecord(f"extra is a {type(extra).__name__}; expected a dict")
    try:
        text = json.dumps(extra, allow_nan=False)
        unaltered = json.loads(text) == extra
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRecord(
            f"extra is not JSON ({error}); use str, int, finite float, bool, None, list, dict"
        ) from error
    if not unaltered:
        raise InvalidRecord(f"extra {extra!r} would come back as {text}; use lists for tuples and string keys")
    return text
