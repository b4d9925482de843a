"""What callers may hand in: one check for each kind of argument, with a message that says what to try."""

import operator
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectorstore.errors import DimensionMismatch, EncoderMismatch, InvalidArgument, InvalidRecord, InvalidVector
from vectorstore.types import Metric, NewRecord, StoreMeta, dump_extra

# Squared distances are float32 inside the index: beyond this length they could overflow, and hits would be lost.
MAX_L2_NORM = 9e18


@dataclass(frozen=True, eq=False, slots=True)
class Columns:
    """What is to be stored, checked, column by column, all of length n.

    Attributes:
        ids, kinds, owners, texts: lists of strings.
        vectors: float32 `[n, dim]`.
        extras: list of JSON texts.
        created: one time for all, or a list of times.
    """

    ids: list[str]
    kinds: Sequence[str]
    owners: Sequence[str]
    texts: Sequence[str]
    vectors: NDArray[np.float32]
    extras: list[str]
    created: str | list[str]


def check_vectors(vectors: ArrayLike, *, ndim: int, dim: int, metric: Metric, what: str) -> NDArray[np.float32]:
    """Return `vectors` as a float32 array `[dim]` (`ndim` 1) or `[n, dim]` (`ndim` 2) that `metric` can measure.

    Args:
        vectors: whatever `numpy.asarray` makes an array of numbers of: arrays, lists, tensors on the CPU. Float32 is
            taken as it is; other numbers are rounded to it.
        ndim, dim, metric: what is expected.
        what: how to call them in a message.

    Raises:
        InvalidVector: no numbers, wrong number of axes, NaN or infinity, a zero vector under cosine, or one too
            long for float32 distances under l2.
        DimensionMismatch: the last axis is not `dim`.
    """
    vectors = as_float32(vectors, what)
    if vectors.ndim != ndim:
        expected = f"[{dim}]" if ndim == 1 else f"[n, {dim}]"
        raise InvalidVector(f"{what} has shape {list(vectors.shape)}; expected {expected}")
    if vectors.shape[-1] != dim:
        raise DimensionMismatch(f"{what} has width {vectors.shape[-1]}; this store holds width {dim}")
    if not np.isfinite(vectors).all():
        raise InvalidVector(f"{what} holds NaN or infinity; expected finite numbers")
    if metric is Metric.COSINE:
        if not vectors.any(axis=-1).all():
            raise InvalidVector(f"{what} is all zeros; a cosine needs a direction, expected a nonzero vector")
        return vectors
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    if (norms > MAX_L2_NORM).any():
        raise InvalidVector(f"{what} has norm {norms.max():.3g}; expected at most {MAX_L2_NORM:.3g}, rescale it")
    return vectors


def as_float32(vectors: ArrayLike, what: str) -> NDArray[np.float32]:
    """Return an array of numbers, a list of them or a tensor on the CPU as a float32 array of the same shape.

    Raises:
        InvalidVector: it cannot be one.
    """
    try:
        array = np.asarray(vectors)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"it has dtype {array.dtype}")
        with np.errstate(over="ignore"):  # infinity, which is refused where vectors are checked
            return array.astype(np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidVector(
            f"{what} is a {type(vectors).__name__}; expected an array or a list of numbers, all rows of one length "
            f"({str(error).splitlines()[0]})"
        ) from error


def record_columns(records: Sequence[NewRecord], meta: StoreMeta, created: str) -> Columns:
    """Return what is to be stored for `records`, missing ids drawn.

    Raises:
        InvalidRecord: one is no `NewRecord`, or its `extra` was changed into something that is not JSON.
        EncoderMismatch, DimensionMismatch, InvalidVector: a vector does not belong in the store.
    """
    for position, record in enumerate(records):
        if not isinstance(record, NewRecord):
            raise InvalidRecord(f"record {position} is a {type(record).__name__}; expected a NewRecord")
        if record.encoder is not None and record.encoder != meta.encoder:
            raise EncoderMismatch(
                f"{_vector_of(position, record)} is of encoder {record.encoder!r}; "
                f"this store holds those of {meta.encoder!r}"
            )
    drawn = iter(draw_ids(len(records)))
    return Columns(
        ids=[next(drawn) if record.id is None else record.id for record in records],
        kinds=[record.kind for record in records],
        owners=[record.owner for record in records],
        texts=[record.text for record in records],
        vectors=_stacked(records, meta),
        extras=[dump_extra(record.extra) for record in records],
        created=created,
    )


def draw_ids(n: int) -> list[str]:
    """Return `n` ids of 32 hexadecimal digits: the time in milliseconds, then 80 random bits.

    Ids that grow with time keep SQLite's index of them compact, and adding to it quick.
    """
    prefix, digits = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10 * n).hex()
    return [prefix + digits[20 * i : 20 * i + 20] for i in range(n)]


def positive_int(name: str, value: int) -> int:
    """Return `value` as an int, or raise `InvalidArgument` unless it is an integer of at least 1."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InvalidArgument(f"{name} is {value!r} ({type(value).__name__}); expected an integer") from error
    if number < 1:
        raise InvalidArgument(f"{name} is {number}; expected at least 1")
    return number


def check_string(name: str, value: str | None, *, optional: bool = False) -> None:
    """Raise `InvalidArgument` unless `value` is a string that UTF-8 can write (or None, if `optional`)."""
    if value is None and optional:
        return
    if not isinstance(value, str):
        expected = "a string or None" if optional else "a string"
        raise InvalidArgument(f"{name} is {value!r} ({type(value).__name__}); expected {expected}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name} is {value!r}, which is not valid text ({error})") from error


def check_ids(name: str, ids: Iterable[str]) -> list[str]:
    """Return `ids` as a list, or raise `InvalidArgument` unless it is a collection of strings."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InvalidArgument(f"{name} is {ids!r} ({type(ids).__name__}); expected a collection of ids")
    found = list(ids)
    for id in found:
        check_string(f"one of {name}", id)
    return found


def checked_metric(metric: Metric | str) -> Metric:
    """Return `metric` as a `Metric`, or raise `InvalidArgument` if it is none."""
    try:
        return Metric(metric)
    except ValueError as error:
        raise InvalidArgument(f"metric is {metric!r}; expected one of {', '.join(Metric)}") from error


def _vector_of(position: int, record: NewRecord) -> str:
    return f"the vector of record {position}" + ("" if record.id is None else f" (id {record.id!r})")


def _stacked(records: Sequence[NewRecord], meta: StoreMeta) -> NDArray[np.float32]:
    rows, width, metric = [record.vector for record in records], meta.dim, meta.metric
    if rows and all(isinstance(row, np.ndarray) and row.shape == (width,) for row in rows):
        try:
            return check_vectors(np.stack(rows), ndim=2, dim=width, metric=metric, what="")
        except InvalidVector:
            pass  # which one it is, the loop says
    checked = [
        check_vectors(record.vector, ndim=1, dim=width, metric=metric, what=_vector_of(position, record))
        for position, record in enumerate(records)
    ]
    return np.stack(checked) if checked else np.empty((0, width), np.float32)
