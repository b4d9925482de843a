"""The kinds of index, their parameters, and which kind suits how many vectors."""

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Self

from vectorstore.errors import InvalidArgument

# Under "auto": below the first number of records a flat index answers within milliseconds and needs no building; up to
# the second the vectors and the links of HNSW fit the memory of a desktop; above, codes do.
AUTO_HNSW, AUTO_IVFPQ = 50_000, 2_000_000
_SEARCHING = ("ef_search", "nprobe", "rerank")  # parameters that an index is not built by


class IndexKind(StrEnum):
    """How neighbours are found.

    Attributes:
        FLAT: compares every vector. Exact, needs no building.
        HNSW: walks a graph of neighbours (Malkov and Yashunin 2016). Approximate, holds the vectors in memory.
        IVFPQ: short codes in inverted lists (Jegou, Douze and Schmid 2011). Approximate, small; a shortlist is ranked
            again with the stored vectors.
    """

    FLAT = "flat"
    HNSW = "hnsw"
    IVFPQ = "ivfpq"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """A kind of index and its parameters, under FAISS's names; those of other kinds are ignored.

    Attributes:
        kind: which index.
        M: HNSW: links per vector and layer.
        ef_construction: HNSW: how many candidates are kept while a vector is linked.
        ef_search: HNSW: how many candidates are kept during a search; more finds more and takes longer.
        nlist: IVF-PQ: number of inverted lists; 0 takes twice the root of the number of vectors.
        nprobe: IVF-PQ: how many lists a search reads; 0 takes one in 32, at least 8.
        m: IVF-PQ: bytes per code at 8 bits, a divisor of the width; 0 takes the largest up to a quarter of it.
        nbits: IVF-PQ: bits per part of a code, 4 to 12.
        rerank: IVF-PQ: shortlist of a search, as a multiple of `k`.

    Raises:
        InvalidArgument: a parameter is no integer or out of range.
    """

    kind: IndexKind = IndexKind.FLAT
    M: int = 32
    ef_construction: int = 80
    ef_search: int = 64
    nlist: int = 0
    nprobe: int = 0
    m: int = 0
    nbits: int = 8
    rerank: int = 6

    def __post_init__(self) -> None:
        """Check the ranges; `m` against the width is checked where the width is known."""
        object.__setattr__(self, "kind", checked_kind(self.kind))
        limits = {
            "M": (2, 256),
            "ef_construction": (1, 10_000),
            "ef_search": (1, 100_000),
            "nlist": (0, 1_000_000),
            "nprobe": (0, 1_000_000),
            "m": (0, 4096),
            "nbits": (4, 12),
            "rerank": (1, 10_000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidArgument(f"{name} is {value!r}; expected an integer from {low} to {high}")

    def built_like(self, other: "IndexConfig") -> bool:
        """Whether an index of the other configuration needs no building to be of this one: only searches differ."""
        if self.kind is not other.kind:
            return False
        searching = {name: getattr(self, name) for name in _SEARCHING}
        return self.kind is IndexKind.FLAT or replace(other, **searching) == self

    def dump(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote.

        Raises:
            ValueError, TypeError: the text is something else.
        """
        return cls(**json.loads(text))


def checked_kind(kind: IndexKind | str) -> IndexKind:
    """Return `kind` as an `IndexKind`, or raise `InvalidArgument` if it is none."""
    try:
        return IndexKind(kind)
    except ValueError as error:
        raise InvalidArgument(f"index kind is {kind!r}; expected one of {', '.join(IndexKind)}, auto") from error


def chosen_config(wanted: IndexConfig | IndexKind | str | None, present: IndexConfig, count: int) -> IndexConfig:
    """Return the configuration that `wanted` names.

    Args:
        wanted: a configuration; a kind, with its default parameters unless `present` is of that kind; "auto" for the
            kind that suits `count`; None for `present`.
        present: what the store has.
        count: number of records.

    Raises:
        InvalidArgument: `wanted` is none of these.
    """
    if wanted is None:
        return present
    if isinstance(wanted, IndexConfig):
        return wanted
    if wanted == "auto":
        large = IndexKind.HNSW if count < AUTO_IVFPQ else IndexKind.IVFPQ
        wanted = IndexKind.FLAT if count < AUTO_HNSW else large
    kind = checked_kind(wanted)
    return present if present.kind is kind else IndexConfig(kind=kind)
