"""Columns of a batch that come as columns: one array of vectors, sequences of the rest."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from vectorstore.checks import Columns, check_string, check_vectors, draw_ids
from vectorstore.errors import InvalidArgument
from vectorstore.types import StoreMeta, dump_extra


def batch_columns(
    vectors: ArrayLike,
    texts: Sequence[str],
    meta: StoreMeta,
    *,
    kind: str | Sequence[str],
    owner: str | Sequence[str],
    ids: Sequence[str] | None,
    extras: Sequence[dict[str, Any]] | None,
    created: str | list[str],
) -> Columns:
    """Return what is to be stored; arguments as `VectorStore.add_batch`.

    Raises:
        InvalidArgument: a column has another length than `vectors`, or holds what is not text.
        InvalidVector, DimensionMismatch: the vectors do not belong in the store.
        InvalidRecord: an extra is not JSON.
    """
    rows = check_vectors(vectors, ndim=2, dim=meta.dim, metric=meta.metric, what="vectors")
    n = len(rows)
    columns = {"texts": texts, "kind": _spread(kind, n), "owner": _spread(owner, n), "ids": ids, "extras": extras}
    for name, column in columns.items():
        if column is None:
            continue
        if isinstance(column, str) or not isinstance(column, Sequence):
            raise InvalidArgument(f"{name} is a {type(column).__name__}; expected a sequence of {n}")
        if len(column) != n:
            raise InvalidArgument(f"{name} has {len(column)} entries for {n} vectors; expected one for each")
        if name != "extras":
            _check_texts(name, column, empty=name in ("texts", "owner"))
    return Columns(
        ids=draw_ids(n) if ids is None else list(ids),
        kinds=columns["kind"] or [],
        owners=columns["owner"] or [],
        texts=texts,
        vectors=rows,
        extras=["{}"] * n if extras is None else [dump_extra(extra) for extra in extras],
        created=created,
    )


def _spread(value: str | Sequence[str], n: int) -> Sequence[str]:
    return [value] * n if isinstance(value, str) else value


def _check_texts(name: str, column: Sequence[str], *, empty: bool) -> None:
    # Strings repeat in a column of kinds or owners; each different one is looked at once.
    try:
        different = set(column)
        "".join(different).encode("utf-8")
        if empty or "" not in different:
            return
    except (TypeError, UnicodeEncodeError):
        pass
    for position, value in enumerate(column):
        check_string(f"{name}[{position}]", value)
        if not empty and value == "":
            raise InvalidArgument(f"{name}[{position}] is empty; expected at least one character")
