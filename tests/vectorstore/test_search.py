"""Search against an exact oracle, and the laws of scores."""

import numpy as np
import pytest

from vectorstore import EmptyStore, Metric, NewRecord, VectorStore

DIM = 8


def oracle(records, query, k, metric, owner=None, kind=None):
    """The k nearest (id, score) by plain float64 numpy, nearest first."""
    chosen = [r for r in records if owner in (None, r.owner) and kind in (None, r.kind)]
    if not chosen:
        return []
    rows, query = np.array([r.vector for r in chosen], np.float64), query.astype(np.float64)
    if metric is Metric.COSINE:
        scores = rows @ query / np.sqrt((rows**2).sum(1)) / np.sqrt((query**2).sum())
    else:
        scores = -np.sqrt(((rows - query) ** 2).sum(1))
    order = np.argsort(-scores, kind="stable")[:k]
    return [(chosen[i].id, scores[i]) for i in order]


def assert_hits(hits, expected):
    assert [hit.record.id for hit in hits] == [id for id, _ in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("owner", [None, "", "Ada", "nobody has this name"])
@pytest.mark.parametrize("kind", [None, "terminal"])
def test_search_is_the_oracle_with_filters_after_delete_and_reopen(folder, metric, owner, kind, make, rng):
    records = make(300)
    queries = rng.normal(size=(3, DIM)).astype(np.float32)

    def check(store):
        for query in queries:
            for k in (1, 10, 120, 1000):
                hits = store.search(query, k, owner=owner, kind=kind)
                assert_hits(hits, oracle(records, query, k, metric, owner, kind))

    with VectorStore.open(folder, encoder="e", dim=DIM, metric=metric) as store:
        store.add(records[:200])
        store.search(queries[0])  # the index exists before the rest comes
        store.add(records[200:])
        check(store)
        for record in records[::7]:
            store.delete(record.id)
        del records[::7]
        check(store)
    with VectorStore.open(folder) as store:  # from the cache file
        assert store.metric is metric
        check(store)
    for file in folder.glob("index*"):
        file.unlink()
    with VectorStore.open(folder, readonly=True) as store:  # from the records
        check(store)
        store.rebuild()
        check(store)


def test_random_operations_agree_with_a_list(folder, metric, make, rng):
    model, added = [], 0
    store = VectorStore.open(folder, encoder="e", dim=DIM, metric=metric)
    for _ in range(150):
        action = rng.integers(6)
        if action <= 1:
            new = make(int(rng.integers(1, 4)), start=added)
            added += len(new)
            assert store.add(new) == [record.id for record in new]
            model += new
        elif action == 2 and model:
            store.delete(model.pop(int(rng.integers(len(model)))).id)
        elif action == 3 and model:
            query = rng.normal(size=DIM).astype(np.float32)
            assert_hits(store.search(query, 5, kind="span"), oracle(model, query, 5, metric, kind="span"))
        elif action == 4:
            assert [record.id for record in store.records()] == [record.id for record in model]
        elif action == 5:
            store.close()
            store = VectorStore.open(folder)
        assert len(store) == len(model)
    assert store.verify() == []
    store.close()


@pytest.mark.parametrize("n", [0, 1, 16, 50])
def test_a_row_of_a_matrix_is_answered_as_the_row_alone(folder, metric, make, rng, n):
    queries = rng.normal(size=(n, DIM)).astype(np.float32)
    with VectorStore.open(folder, encoder="e", dim=DIM, metric=metric) as store:
        store.add(make(100))
        assert store.search(queries, 7) == [store.search(query, 7) for query in queries]


def test_scores_say_what_the_metric_documents(folder, metric):
    rows = np.array([[3, 4], [6, 8], [-3, -4]], np.float32)
    expected = {Metric.COSINE: [1.0, 1.0, -1.0], Metric.L2: [0.0, -5.0, -10.0]}[metric]
    with VectorStore.open(folder, encoder="e", dim=2, metric=metric) as store:
        store.add(NewRecord(kind="k", text=str(i), vector=row) for i, row in enumerate(rows))
        hits = store.search(rows[0])
        assert [hit.record.text for hit in hits] == ["0", "1", "2"]
        assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-12)
        np.testing.assert_array_equal(hits[1].record.vector, rows[1])


def test_cosine_ignores_length_even_at_the_ends_of_float32(store):
    rows = np.eye(DIM, dtype=np.float32)
    store.add(
        NewRecord(kind="k", text=str(i), vector=row * np.float32(10.0 ** (9 * i - 38))) for i, row in enumerate(rows)
    )
    for i, row in enumerate(rows):
        best, second = store.search(row * np.float32(1e-40), 2)
        assert (best.record.text, best.score, second.score) == (str(i), 1.0, 0.0)


def test_l2_tells_near_neighbours_far_from_the_origin_apart(folder, monkeypatch):
    import faiss

    # The value of older releases, with which a large batch would be answered less exactly.
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 20)
    rows = np.full((40, 4), 1000, np.float32)
    rows[:, 0] += np.arange(40, dtype=np.float32) / 1000
    with VectorStore.open(folder, encoder="e", dim=4, metric=Metric.L2) as store:
        store.add(NewRecord(kind="k", text=str(i), vector=row) for i, row in enumerate(rows))
        assert [hits[0].record.text for hits in store.search(rows, 1)] == [str(i) for i in range(40)]


def test_equal_scores_come_in_insertion_order(store, make):
    twin = make(1)[0].vector
    ids = store.add(NewRecord(kind="k", text="t", vector=twin) for _ in range(5))
    assert [hit.record.id for hit in store.search(twin)] == ids


def test_search_accepts_views_and_changes_neither_query_nor_store(store, make):
    store.add(make(20))
    wide = np.ones((DIM, 6), np.float32)
    before = list(store.records())
    assert store.search(wide.T[::2][0]) == store.search(np.ones(DIM, np.float32))
    assert (wide == 1).all()
    assert list(store.records()) == before


def test_a_store_without_records_cannot_be_searched(store, make):
    query = np.ones(DIM, np.float32)
    with pytest.raises(EmptyStore, match="no records; add some"):
        store.search(query)
    store.add(make(1))
    store.delete("r0")
    with pytest.raises(LookupError, match="no records"):
        store.search(query)
