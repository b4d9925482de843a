"""What callers may hand in: one check for each kind of argument, with a message that says what to try."""

import operator
import uuid

import numpy as np
from numpy.typing import NDArray

from vectorstore.database import StoreMeta
from vectorstore.errors import DimensionMismatch, EncoderMismatch, InvalidArgument, InvalidRecord, InvalidVector
from vectorstore.types import Metric, NewRecord, Record

# Squared distances are float32 inside the index: beyond this length they could overflow, and hits would be lost.
MAX_L2_NORM = 9e18


def check_vectors(vectors: NDArray[np.float32], *, ndim: int, dim: int, metric: Metric, what: str) -> None:
    """Raise unless `vectors` is a float32 array `[dim]` (`ndim` 1) or `[n, dim]` (`ndim` 2) that `metric` can measure.

    Raises:
        InvalidVector: not a numpy array, wrong dtype, wrong number of axes, NaN or infinity, a zero vector under
            cosine, or one too long for float32 distances under l2.
        DimensionMismatch: the last axis is not `dim`.
    """
    if not isinstance(vectors, np.ndarray):
        raise InvalidVector(f"{what} is a {type(vectors).__name__}; expected a numpy float32 array")
    if vectors.dtype != np.float32:
        raise InvalidVector(f"{what} has dtype {vectors.dtype}; expected float32, try .astype(numpy.float32)")
    if vectors.ndim != ndim:
        expected = f"[{dim}]" if ndim == 1 else f"[n, {dim}]"
        raise InvalidVector(f"{what} has shape {list(vectors.shape)}; expected {expected}")
    if vectors.shape[-1] != dim:
        raise DimensionMismatch(f"{what} has width {vectors.shape[-1]}; this store holds width {dim}")
    if not np.isfinite(vectors).all():
        raise InvalidVector(f"{what} holds NaN or infinity; expected finite numbers")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    if metric is Metric.COSINE and (norms == 0).any():
        raise InvalidVector(f"{what} is all zeros; a cosine needs a direction, expected a nonzero vector")
    if metric is Metric.L2 and (norms > MAX_L2_NORM).any():
        raise InvalidVector(f"{what} has norm {norms.max():.3g}; expected at most {MAX_L2_NORM:.3g}, rescale it")


def complete_record(record: NewRecord, meta: StoreMeta, position: int, created: str) -> Record:
    """Return what is to be stored for `record`, the one at `position` in its call.

    Raises:
        InvalidRecord: it is no `NewRecord`.
        EncoderMismatch, DimensionMismatch, InvalidVector: its vector does not belong in the store.
    """
    if not isinstance(record, NewRecord):
        raise InvalidRecord(f"record {position} is a {type(record).__name__}; expected a NewRecord")
    what = f"the vector of record {position}" + ("" if record.id is None else f" (id {record.id!r})")
    if record.encoder is not None and record.encoder != meta.encoder:
        raise EncoderMismatch(f"{what} is of encoder {record.encoder!r}; this store holds those of {meta.encoder!r}")
    check_vectors(record.vector, ndim=1, dim=meta.dim, metric=meta.metric, what=what)
    return Record(
        id=uuid.uuid4().hex if record.id is None else record.id,
        kind=record.kind,
        owner=record.owner,
        text=record.text,
        vector=record.vector,
        encoder=meta.encoder,
        created=created,
        extra=record.extra,
    )


def positive_int(name: str, value: int) -> int:
    """Return `value` as an int, or raise `InvalidArgument` unless it is an integer of at least 1."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InvalidArgument(f"{name} is {value!r} ({type(value).__name__}); expected an integer") from error
    if number < 1:
        raise InvalidArgument(f"{name} is {number}; expected at least 1")
    return number


def check_string(name: str, value: str | None, *, optional: bool) -> None:
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


def checked_metric(metric: Metric | str) -> Metric:
    """Return `metric` as a `Metric`, or raise `InvalidArgument` if it is none."""
    try:
        return Metric(metric)
    except ValueError as error:
        raise InvalidArgument(f"metric is {metric!r}; expected one of {', '.join(Metric)}") from error
