"""Stores and records for the tests of `vectorstore`."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vectorstore import Metric, NewRecord, VectorStore

DIM = 8
ENCODER = "test-encoder@1"

Vectors = NDArray[np.float32]
Make = Callable[..., list[NewRecord]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def random_records(rng: np.random.Generator, n: int, *, start: int = 0, dim: int = DIM) -> list[NewRecord]:
    """Random records, ids r0, r1, ..., owners and kinds in turn."""
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    return [
        NewRecord(
            id=f"r{i}",
            kind=("span", "terminal")[i % 2],
            owner=("", "Ada", "Ben")[i % 3],
            text=f"text {i}",
            vector=row,
            extra={"i": i},
        )
        for i, row in enumerate(rows, start)
    ]


@pytest.fixture
def make(rng: np.random.Generator) -> Make:
    """`random_records` of the test's own generator."""
    return partial(random_records, rng)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store"


@pytest.fixture(params=list(Metric))
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param


@pytest.fixture
def store(folder: Path) -> Iterator[VectorStore]:
    """An empty cosine store."""
    with VectorStore.open(folder, encoder=ENCODER, dim=DIM) as opened:
        yield opened
