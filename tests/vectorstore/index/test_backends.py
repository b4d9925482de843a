"""Every back end against the exact one in numpy."""

import sys

import numpy as np
import pytest

from vectorstore import IndexConfig, IndexKind, InvalidArgument, Metric, MissingDependency, TooFewVectors
from vectorstore.index.backends import Mask, make_backend
from vectorstore.index.backends.exact import NumpyIndex, read_exact
from vectorstore.index.backends.faiss_io import read
from vectorstore.index.scores import indexed_rows

DIM, COUNT, K = 16, 3000, 10
CONFIGS = {
    "flat": IndexConfig(),
    "hnsw": IndexConfig(kind=IndexKind.HNSW, M=16, ef_search=80),
    "ivfpq": IndexConfig(kind=IndexKind.IVFPQ, nlist=30, nprobe=12, m=8, nbits=6),
}
LEAST_RECALL = {"flat": 1.0, "hnsw": 0.97, "ivfpq": 0.9}


def clustered(rng, n):
    centres = np.random.default_rng(3).normal(size=(20, DIM))
    return (centres[rng.integers(20, size=n)] + 0.4 * rng.normal(size=(n, DIM))).astype(np.float32)


@pytest.fixture(params=list(CONFIGS))
def name(request):
    return request.param


@pytest.fixture
def built(name, metric, rng):
    """A back end and the exact one, of the same vectors, and queries."""
    rows = indexed_rows(clustered(rng, COUNT), metric)
    backend, exact = make_backend(CONFIGS[name], DIM, metric, COUNT), NumpyIndex(DIM, metric)
    backend.train(rows)
    for start in range(0, COUNT, 1000):
        backend.add(rows[start : start + 1000])
    exact.add(rows)
    assert len(backend) == len(exact) == COUNT
    return backend, exact, indexed_rows(clustered(rng, 40), metric)


def recall(backend, exact, queries, mask=None, k=K):
    """Share of the exact k nearest among what a search proposes."""
    found, expected = backend.search(queries, k, mask), exact.search(queries, k, mask)
    return np.mean([len(set(row) & set(best)) / k for row, best in zip(found, expected, strict=True)])


def test_recall_against_the_exact_index(built, name):
    backend, exact, queries = built
    assert recall(backend, exact, queries) >= LEAST_RECALL[name]
    if name == "flat":
        np.testing.assert_array_equal(backend.search(queries, K, None), exact.search(queries, K, None))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.004])
def test_a_mask_is_kept_and_costs_no_recall(built, name, rng, share):
    backend, exact, queries = built
    allowed = rng.random(COUNT) < share
    mask = Mask.of(allowed)
    k = min(K, mask.count)
    found = backend.search(queries, k, mask)
    assert allowed[found[found >= 0]].all()
    assert recall(backend, exact, queries, mask, k) >= LEAST_RECALL[name] - 0.05


def test_vectors_added_later_are_found(built, name, metric, rng):
    backend, exact, _ = built
    new = indexed_rows(clustered(rng, 50) + 1, metric)
    backend.add(new)
    exact.add(new)
    assert recall(backend, exact, new) >= LEAST_RECALL[name] - 0.05
    assert np.mean([COUNT + i in row for i, row in enumerate(backend.search(new, 1, None))]) >= 0.98


def test_rows_come_back_or_are_codes(built, name):
    backend, exact, _ = built
    some = np.array([0, 7, COUNT - 1])
    rows = backend.rows(some)
    if name == "ivfpq":
        assert rows is None
        assert backend.memory() < exact.memory()
    else:
        np.testing.assert_array_equal(rows, exact.rows(some))
        assert backend.memory() >= exact.memory()


def test_positions_are_dropped_or_that_is_refused(built, name, rng):
    backend, exact, queries = built
    alive = rng.random(COUNT) < 0.7
    if name != "flat":
        assert not backend.keep(alive)
        assert len(backend) == COUNT
        return
    assert backend.keep(alive) and exact.keep(alive)
    assert len(backend) == len(exact) == alive.sum()
    np.testing.assert_array_equal(backend.search(queries, K, None), exact.search(queries, K, None))


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_gives_the_same_answers(built, name, tmp_path, mmap):
    backend, _, queries = built
    if mmap and name == "ivfpq":
        pytest.skip("is read, not mapped")
    nums = np.arange(COUNT) * 3 + 5
    digest = backend.save(tmp_path / "file", nums)
    assert len(digest) == 64
    index, found = read(tmp_path / "file", mmap=mmap)
    np.testing.assert_array_equal(found, nums)
    before = backend.search(queries, K, None)
    if name == "ivfpq":
        assert index.ntotal == COUNT
    else:
        if name == "hnsw":
            index.hnsw.efSearch = 80
        np.testing.assert_array_equal(index.search(queries, K)[1], before)


def test_the_exact_index_keeps_its_file(tmp_path, rng):
    index = NumpyIndex(DIM, Metric.L2)
    index.add(clustered(rng, 10))
    index.save(tmp_path / "file.npz", np.arange(10))
    rows, nums = read_exact(tmp_path / "file.npz")
    np.testing.assert_array_equal(rows, index.rows(nums))


def test_masks(rng):
    allowed = rng.random(77) < 0.5
    mask = Mask.of(allowed)
    assert (mask.size, mask.count) == (77, allowed.sum())
    np.testing.assert_array_equal(mask.allowed(), allowed)
    less = mask.without(np.array([3, 4, 3, 76]))
    allowed[[3, 4, 76]] = False
    np.testing.assert_array_equal(less.allowed(), allowed)
    assert less.count == allowed.sum()


def test_an_index_is_not_trained_on_too_little():
    with pytest.raises(TooFewVectors, match="at least 9984 vectors; the store holds 500"):
        make_backend(IndexConfig(kind=IndexKind.IVFPQ), DIM, Metric.L2, 500)
    with pytest.raises(ValueError, match="at least 39000 vectors"):
        make_backend(IndexConfig(kind=IndexKind.IVFPQ, nlist=1000), DIM, Metric.L2, 20_000)
    with pytest.raises(InvalidArgument, match="m is 7; expected a divisor of the width 16"):
        make_backend(IndexConfig(kind=IndexKind.IVFPQ, m=7), DIM, Metric.L2, 20_000)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"M": 1}, "M is 1; expected an integer from 2 to 256"),
        ({"nbits": 3}, "nbits is 3"),
        ({"ef_search": 2.5}, "ef_search is 2.5"),
        ({"rerank": True}, "rerank is True"),
        ({"kind": "tree"}, "index kind is 'tree'; expected one of flat, hnsw, ivfpq, auto"),
    ],
)
def test_senseless_parameters_are_refused(options, match):
    with pytest.raises(InvalidArgument, match=match):
        IndexConfig(**options)


def test_without_faiss_flat_is_numpy_and_the_others_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert isinstance(make_backend(IndexConfig(), DIM, Metric.L2), NumpyIndex)
    with pytest.raises(MissingDependency, match="pip install faiss-cpu"):
        make_backend(IndexConfig(kind=IndexKind.HNSW), DIM, Metric.L2)
