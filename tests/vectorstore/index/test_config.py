"""Stores with an index of each kind: chosen, extended, thinned out, lost, mapped."""

import logging
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from vectorstore import IndexConfig, IndexKind, InvalidArgument, Metric, NewRecord, TooFewVectors, VectorStore
from vectorstore.index import config as kinds
from vectorstore.table import database

DIM, COUNT = 16, 1500
HNSW = IndexConfig(kind=IndexKind.HNSW, M=16, ef_search=80)
IVFPQ = IndexConfig(kind=IndexKind.IVFPQ, nlist=20, nprobe=12, m=8, nbits=5)


@pytest.fixture(params=[HNSW, IVFPQ], ids=["hnsw", "ivfpq"])
def config(request):
    return request.param


@pytest.fixture
def rows(rng):
    centres = rng.normal(size=(20, DIM))
    return (centres[rng.integers(20, size=COUNT)] + 0.4 * rng.normal(size=(COUNT, DIM))).astype(np.float32)


def texts(start, end):
    return [f"r{i}" for i in range(start, end)]


@pytest.fixture
def store(folder, metric, rows):
    with VectorStore.open(folder, encoder="e", dim=DIM, metric=metric) as store:
        owners = [f"o{i % 5}" for i in range(COUNT)]
        store.add_batch(rows, texts(0, COUNT), ids=texts(0, COUNT), kind="span", owner=owners)
        yield store


def names(hits):
    return [hit.record.id for hit in hits]


def recall(store, folder, queries, **filters):
    """Recall at 10 of a store against the same records compared one by one."""
    rows = {record.id: record.vector for record in store.records(filters.get("owner"))}
    ids, matrix = list(rows), np.stack(list(rows.values())).astype(np.float64)
    shares = []
    for query, hits in zip(queries, store.search(queries, 10, **filters), strict=True):
        if store.metric is Metric.COSINE:
            scores = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
        else:
            scores = -np.linalg.norm(matrix - query, axis=1)
        best = np.argsort(-scores, kind="stable")[:10]
        shares.append(len({ids[i] for i in best} & set(names(hits))) / 10)
        known = dict(zip(ids, scores, strict=True))
        np.testing.assert_allclose([hit.score for hit in hits], [known[id] for id in names(hits)], atol=1e-6)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return np.mean(shares)


def test_a_chosen_kind_is_built_kept_and_extended(store, folder, config, rows, rng):
    queries = rows[:40] + 0.1
    store.optimize(config)
    assert (store.stats().index, store.stats().built, store.stats().later) == (config, COUNT, 0)
    assert recall(store, folder, queries) > 0.93
    assert recall(store, folder, queries, owner="o3") > 0.93
    store.add_batch(rows[:30] + 2, texts(COUNT, COUNT + 30), ids=texts(COUNT, COUNT + 30), kind="span")
    assert names(store.search(rows[7] + 2, 1)) == [f"r{COUNT + 7}"]
    assert store.stats().built == COUNT + 30  # few enough to be linked in passing
    assert store.verify() == []
    store.close()
    with VectorStore.open(folder) as again:
        again.search(rows[0])
        assert (again.stats().index, again.stats().built) == (config, COUNT + 30)
        assert recall(again, folder, queries) > 0.93
        assert again.verify() == []


def test_parameters_of_searches_change_without_building(store, folder, rows, monkeypatch):
    store.optimize(IndexConfig(kind=IndexKind.HNSW, M=4, ef_search=1))
    few = recall(store, folder, rows[:60])
    with monkeypatch.context() as patch:
        patch.setattr("vectorstore.index.sync.make_backend", None)  # nothing may be built
        store.optimize(IndexConfig(kind=IndexKind.HNSW, M=4, ef_search=500))
    assert recall(store, folder, rows[:60]) > few
    assert store.stats().index.ef_search == 500
    store.close()
    with VectorStore.open(folder, readonly=True) as again:
        assert again.stats().index.ef_search == 500 and again.stats().built == COUNT
        assert recall(again, folder, rows[:60]) > few


def test_many_later_vectors_are_compared_one_by_one_until_the_next_optimize(store, folder, rows, rng):
    store.optimize(HNSW)
    new = (rows[:400] + rng.normal(size=(400, DIM)) + 1).astype(np.float32)
    store.add_batch(new, texts(COUNT, COUNT + 400), ids=texts(COUNT, COUNT + 400), kind="span")
    assert all(names(hits) == [f"r{COUNT + i}"] for i, hits in enumerate(store.search(new, 1)))
    assert (store.stats().built, store.stats().later) == (COUNT, 400)
    assert recall(store, folder, rows[:40] + 0.5) > 0.93
    first = store._index.segments[0]
    store.optimize()
    assert store._index.segments == [first]  # extended, not built anew
    assert (store.stats().built, store.stats().later) == (COUNT + 400, 0)
    assert store.verify() == []


def test_all_that_came_later_may_be_deleted_again(store, folder, rows):
    """The part beside the graph is empty then, and must not be filled with what the graph holds."""
    store.optimize(HNSW)
    for _ in range(2):
        ids = store.add_batch(rows[:300], texts(0, 300), kind="later")
        assert store.search(rows[0], 1, kind="later")[0].record.id == ids[0]
        store.delete(ids)
        assert (store.search(rows[0], 5, kind="later"), store.stats().later, len(store)) == ([], 0, COUNT)
        assert store.verify() == []
    store.add_batch(rows[:1], ["again"], ids=["again"], kind="later")
    assert {"r0", "again"} == set(names(store.search(rows[0], 2)))
    store.delete_where(kind="span")
    assert names(store.search(rows[0], 5)) == ["again"]
    assert store.verify() == []


def test_deleted_vectors_are_hidden_at_once_and_dropped_by_compact(store, folder, config, rows):
    store.optimize(config)
    gone = texts(0, 400)
    store.delete(gone)
    hits = store.search(rows[:40], 10)
    assert not {id for found in hits for id in names(found)} & set(gone)
    assert recall(store, folder, rows[:40]) > 0.9
    assert (store.stats().tombstones, len(store)) == (400, COUNT - 400)
    assert store.verify() == []
    store.close()
    with VectorStore.open(folder) as again:  # deletions that the file does not know of
        assert not {id for found in again.search(rows[:40], 10) for id in names(found)} & set(gone)
        before = again.stats().database_bytes
        again.compact()
        assert again.stats().tombstones == 0
        assert again.stats().database_bytes < before
        assert recall(again, folder, rows[:40]) > 0.9
        assert again.verify() == []


def test_optimize_builds_anew_when_many_are_deleted(store):
    store.optimize(HNSW)
    first = store._index.segments[0]
    store.delete(texts(0, 200))
    store.optimize()
    assert store._index.segments == [first]
    store.delete(texts(200, 600))
    store.optimize()
    assert store._index.segments != [first]
    assert (store.stats().built, store.stats().tombstones) == (COUNT - 600, 0)


def test_a_lost_file_makes_searches_exact_not_slow(store, folder, config, rows, caplog):
    store.optimize(config)
    store.close()
    (file,) = folder.glob("index-*")
    content = file.read_bytes()
    file.unlink()
    with caplog.at_level(logging.WARNING, "vectorstore"), VectorStore.open(folder) as again:
        assert recall(again, folder, rows[:20]) == 1.0
        assert (again.stats().built, again.stats().later) == (0, COUNT)
        assert again.stats().index == config
    assert "rebuilding it from the records" in caplog.text
    file.write_bytes(content)  # a flat index was not saved over what may come back
    with VectorStore.open(folder) as again:
        again.search(rows[0])
        assert again.stats().built == COUNT
        file.unlink()
        again.rebuild()
        assert again.stats().built == COUNT
        assert again.verify() == []


def test_mapped_files_answer_alike_and_later_vectors_lie_beside_them(store, folder, rows):
    for config in (IndexConfig(), HNSW, IVFPQ):
        store.optimize(config)
        store.rebuild()
        expected = store.search(rows[:20])
        with VectorStore.open(folder, mmap=True) as mapped:
            assert mapped.search(rows[:20]) == expected
        with VectorStore.open(folder, mmap=True) as mapped:
            mapped.search(rows[0])
            mapped.add(NewRecord(id="later", kind="span", text="t", vector=rows[0] + 3))
            assert names(mapped.search(rows[0] + 3, 1)) == ["later"]
            mapped.delete("later")
            mapped.delete("r0")
            assert "r0" not in names(mapped.search(rows[0], 20))
            assert mapped.verify() == []
        store.add_batch(rows[:1], ["r0"], ids=["r0"], kind="span")
        assert store.verify() == []


def test_auto_chooses_by_the_number_of_records_when_the_store_is_closed(folder, rows, monkeypatch):
    monkeypatch.setattr(kinds, "AUTO_HNSW", 1000)
    with VectorStore.open(folder, encoder="e", dim=DIM, index="auto") as store:
        store.add_batch(rows[:900], texts(0, 900), kind="span")
    with VectorStore.open(folder) as store:
        assert store.stats().index.kind is IndexKind.FLAT
        store.add_batch(rows[900:], texts(900, COUNT), kind="span")
    with VectorStore.open(folder, index="auto") as store:
        store.search(rows[0])
        assert store.stats().index.kind is IndexKind.FLAT  # a search builds nothing
    with VectorStore.open(folder, readonly=True) as store:
        assert (store.stats().index.kind, store.stats().built) == (IndexKind.HNSW, COUNT)
        monkeypatch.setattr(kinds, "AUTO_IVFPQ", 1200)
    with VectorStore.open(folder) as store, pytest.raises(TooFewVectors, match="at least 9984"):
        store.optimize("auto")
    with VectorStore.open(folder) as store:
        assert (store.stats().index.kind, store.stats().built) == (IndexKind.HNSW, COUNT)


def test_closing_an_auto_store_while_another_writes_only_logs(folder, rows, monkeypatch, caplog):
    monkeypatch.setattr(kinds, "AUTO_HNSW", 10)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    store = VectorStore.open(folder, encoder="e", dim=DIM, index="auto")
    store.add_batch(rows[:50], texts(0, 50), kind="span")
    with closing(sqlite3.connect(folder / "records.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        store.close()
    assert "was not saved" in caplog.text
    with VectorStore.open(folder, index="auto") as store:
        assert len(store.search(rows[0], 50)) == 50
    with VectorStore.open(folder) as store:
        assert (store.stats().index.kind, store.stats().built) == (IndexKind.HNSW, 50)


def test_a_kind_may_be_chosen_at_creation_and_is_then_kept(folder, rows):
    with VectorStore.open(folder, encoder="e", dim=DIM, index=HNSW) as store:
        store.add_batch(rows[:100], texts(0, 100), kind="span")
        store.search(rows[0])
        assert store.stats().index == HNSW
        store.optimize()
        assert (store.stats().index, store.stats().built) == (HNSW, 100)
    with VectorStore.open(folder, index="flat") as store:
        assert store.stats().index == HNSW
        store.optimize("flat")
        assert store.stats().index == IndexConfig()


def test_an_empty_store_may_be_optimized_unless_it_must_be_trained(folder, rows):
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        store.optimize(HNSW)
        with pytest.raises(TooFewVectors, match="holds 0"):
            store.optimize(IVFPQ)
        assert store.stats().index == HNSW
        store.add_batch(rows[:5], texts(0, 5), kind="span")
        assert len(store.search(rows[0])) == 5
        assert store.verify() == []


@pytest.mark.parametrize("kind", ["tree", 3, "AUTO"])
def test_unknown_kinds_are_refused(store, kind):
    with pytest.raises(InvalidArgument, match="expected one of flat, hnsw, ivfpq, auto"):
        store.optimize(kind)


def test_a_store_works_without_faiss(folder, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        store.add_batch(rows, texts(0, COUNT), ids=texts(0, COUNT), kind="span")
        assert recall(store, folder, rows[:5]) == 1.0
    with VectorStore.open(folder) as store:
        store.delete(texts(0, 100))
        assert recall(store, folder, rows[:5]) == 1.0
        assert store.verify() == []
    monkeypatch.undo()
    with VectorStore.open(folder) as store:  # FAISS takes over what numpy left
        assert recall(store, folder, rows[:5]) == 1.0
        assert store.verify() == []
