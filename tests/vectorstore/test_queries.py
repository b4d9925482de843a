"""Filters, ranges, diversity and lookups, against plain loops over the records."""

import numpy as np
import pytest

from vectorstore import (
    InvalidArgument,
    InvalidRecord,
    Metric,
    NewRecord,
    RecordNotFound,
    VectorStore,
)
from vectorstore.filters import make_condition
from vectorstore.table.records import RecordTable

DIM, COUNT = 8, 400


@pytest.fixture
def vectors(rng):
    return rng.normal(size=(COUNT, DIM)).astype(np.float32)


def extra(i):
    """Fields of several types, some missing, one with a name that JSON escapes."""
    fields = {"story": f"s{i // 10}", "position": i % 10, "weight": i / 8, "ü": i % 3, "done": i % 2 == 0}
    if i % 7 == 0:
        fields |= {"position": str(i % 10), "weight": None}
    if i % 11 == 0:
        del fields["story"]
    return fields


@pytest.fixture
def store(folder, metric, vectors):
    with VectorStore.open(folder, encoder="e", dim=DIM, metric=metric, indexed=("story",)) as store:
        store.add(
            NewRecord(
                id=f"r{i}",
                kind=("span", "terminal", "voice")[i % 3],
                owner=("", "Ada", "Ben", "Cy")[i % 4],
                text=f"text {i}",
                vector=vectors[i],
                extra=extra(i),
            )
            for i in range(COUNT)
        )
        yield store


def is_number(value):
    return isinstance(value, int | float)


CASES = [
    ({"owner": ["Ada", "Ben"]}, lambda r: r.owner in ("Ada", "Ben")),
    ({"owner": {"Cy"}, "kind": ("span", "voice")}, lambda r: r.owner == "Cy" and r.kind in ("span", "voice")),
    ({"owner": []}, lambda r: False),
    ({"where": {"story": "s7"}}, lambda r: r.extra.get("story") == "s7"),
    ({"where": {"story": ["s7", "s8", "none"]}}, lambda r: r.extra.get("story") in ("s7", "s8")),
    ({"where": {"story": None}}, lambda r: r.extra.get("story") is None),
    ({"where": {"story": {"in": ["s1", None]}}}, lambda r: r.extra.get("story") in ("s1", None)),
    (
        {"where": {"position": {"ge": 3, "lt": 9}}},
        lambda r: is_number(r.extra["position"]) and 3 <= r.extra["position"] < 9,
    ),
    (
        {"where": {"position": {"gt": "2"}}},
        lambda r: isinstance(r.extra["position"], str) and r.extra["position"] > "2",
    ),
    ({"where": {"weight": {"le": 2.5}}}, lambda r: r.extra["weight"] is not None and r.extra["weight"] <= 2.5),
    ({"where": {"position": {"eq": 4}}, "kind": "span"}, lambda r: r.extra["position"] == 4 and r.kind == "span"),
    ({"where": {"ü": 2}}, lambda r: r.extra["ü"] == 2),
    ({"where": {"done": True}}, lambda r: r.extra["done"]),
    ({"where": {}}, lambda r: True),
    ({"where": {"nothing": 1}}, lambda r: False),
]


@pytest.mark.parametrize(("filters", "matches"), CASES)
def test_filters_select_what_a_loop_does(store, vectors, filters, matches):
    expected = [record.id for record in store.records() if matches(record)]
    assert [record.id for record in store.records(**filters)] == expected
    for query in vectors[:3]:
        everything = [hit.record.id for hit in store.search(query, COUNT)]
        hits = store.search(query, 7, **filters)
        assert [hit.record.id for hit in hits] == [id for id in everything if id in set(expected)][:7]


def test_a_filter_is_asked_of_sqlite_once_and_knows_later_and_deleted_rows(store, vectors, monkeypatch):
    asked, plain = [], RecordTable.nums

    def nums(self, *args, **options):
        asked.append(options)
        return plain(self, *args, **options)

    monkeypatch.setattr(RecordTable, "nums", nums)

    def found():
        return {hit.record.id for hit in store.search(vectors[0], COUNT, owner="Ada", where={"position": 1})}

    first = found()
    assert len(asked) == 1
    assert found() == first
    assert len(asked) == 1
    store.add(NewRecord(id="new", kind="span", owner="Ada", text="t", vector=vectors[0], extra={"position": 1}))
    store.add(NewRecord(id="other", kind="span", owner="Ada", text="t", vector=vectors[0], extra={"position": 2}))
    gone = sorted(first)[0]
    store.delete(gone)
    assert found() == first - {gone} | {"new"}
    assert [options["after"] for options in asked] == [0, COUNT]


def test_excluded_ids_are_left_out(store, vectors):
    all_ids = [hit.record.id for hit in store.search(vectors[0], COUNT)]
    for excluded in (all_ids[:1], all_ids[:20], all_ids[:100], ["no such id", all_ids[3]]):
        left = [id for id in all_ids if id not in excluded]
        assert [hit.record.id for hit in store.search(vectors[0], 10, exclude=excluded)] == left[:10]
        span = {record.id for record in store.records(kind="span")}
        hits = store.search(vectors[0], 10, kind="span", exclude=excluded)
        assert [hit.record.id for hit in hits] == [id for id in left if id in span][:10]
    assert store.search(vectors[0], exclude=all_ids) == []


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_range_holds_just_what_scores_enough(store, vectors, share):
    hits = store.search(vectors[5], COUNT)
    bound = hits[int(share * (COUNT - 1))].score
    expected = [hit for hit in hits if hit.score >= bound]
    assert store.search_range(vectors[5], bound) == expected
    assert store.search_range(vectors[5], bound, limit=3) == expected[:3]
    spans = [hit for hit in expected if hit.record.kind == "span"]
    assert store.search_range(vectors[5], bound, kind="span") == spans
    assert store.search_range(vectors[5], 1.1) == []


def test_diversity_trades_nearness_for_difference(folder):
    """Two near twins and a third in another direction: after one twin comes the stranger."""
    rows = np.array([[1, 0.1], [1, 0.11], [0.3, 1], [-1, 0]], np.float32)
    with VectorStore.open(folder, encoder="e", dim=2) as store:
        store.add_batch(rows, list("abcd"), ids=list("abcd"), kind="k")
        query = np.array([1, 0.2], np.float32)

        def found(k, **options):
            return "".join(hit.record.id for hit in store.search(query, k, **options))

        assert found(3) == found(3, diversity=0) == "bac"
        assert found(2, diversity=0.5) == "bc"
        assert sorted(found(4, diversity=1)) == list("abcd")
        scores = {hit.record.id: hit.score for hit in store.search(query, 4)}
        assert all(hit.score == scores[hit.record.id] for hit in store.search(query, 3, diversity=0.6))


def test_diversity_picks_as_the_formula_says(store, vectors):
    query, k, diversity = vectors[0], 5, 0.4
    pool = store.search(query, 4 * k)
    score = {hit.record.id: hit.score for hit in pool}

    def like(a, b):
        x, y = (record.vector.astype(np.float64) for record in (a, b))
        return (
            x @ y / np.linalg.norm(x) / np.linalg.norm(y) if store.metric is Metric.COSINE else -np.linalg.norm(x - y)
        )

    picked, left = [], [hit.record for hit in pool]
    while len(picked) < k:
        gains = [
            (1 - diversity) * score[r.id] - diversity * max(like(r, p) for p in picked) if picked else score[r.id]
            for r in left
        ]
        picked.append(left.pop(int(np.argmax(gains))))
    hits = store.search(query, k, diversity=diversity)
    assert [hit.record.id for hit in hits] == [record.id for record in picked]
    assert store.search(np.stack([query, vectors[1]]), k, diversity=diversity)[0] == hits


def test_records_in_order_of_a_field_and_limited(store):
    rows = list(store.records(where={"weight": {"ge": 0}}))
    by_weight = sorted(rows, key=lambda r: r.extra["weight"])
    ordered = store.records(where={"weight": {"ge": 0}}, order_by="weight", limit=5)
    assert [r.id for r in ordered] == [r.id for r in by_weight[:5]]
    falling = store.records(where={"weight": {"ge": 0}}, order_by="weight", descending=True)
    assert [r.id for r in falling] == [r.id for r in reversed(by_weight)]
    newest = store.records(descending=True, limit=2)
    assert [r.id for r in newest] == [f"r{COUNT - 1}", f"r{COUNT - 2}"]


def test_an_indexed_field_is_looked_up_in_its_index(store, folder):
    table = store._access.table()
    assert store.stats().fields == ["story"]

    def plan(**filters):
        condition = make_condition(None, None, filters)
        sql = f"EXPLAIN QUERY PLAN SELECT num FROM records WHERE {condition.sql} AND num > 0 ORDER BY num"
        return str(table._connection.execute(sql, condition.values).fetchall())

    assert "USING INDEX extra:story" in plan(story="s7")
    assert "INTEGER PRIMARY KEY" in plan(position=3)
    store.close()
    with VectorStore.open(folder, indexed=("position", "story")) as again:
        assert again.stats().fields == ["position", "story"]
        table = again._access.table()
        assert "USING INDEX extra:position" in plan(position=3)
    with VectorStore.open(folder, readonly=True, indexed=("weight",)) as reader:
        assert reader.stats().fields == ["position", "story"]


def test_many_records_by_id(store):
    ids = ["r3", "r1", "r3", "r200"]
    assert [record.id for record in store.get_many(ids)] == ids
    assert store.get_many([]) == []
    everything = [f"r{i}" for i in range(COUNT)] * 3
    assert [record.id for record in store.get_many(everything)] == everything
    with pytest.raises(RecordNotFound, match="no record has the id 'x'"):
        store.get_many(["r1", "x"])


def test_ids_that_are_there_are_found_and_others_left_out(store):
    assert [record.id for record in store.find(["x", "r3", "r1", "r3"])] == ["r3", "r1", "r3"]
    assert store.find(["x"]) == store.find([]) == []
    with pytest.raises(InvalidArgument, match="expected a collection of ids"):
        store.find("r1")


def test_update_changes_what_is_given_and_keeps_the_rest(store, vectors):
    before = store.get("r5")
    store.search(vectors[5])
    store.update("r5", text="new text", vector=-vectors[5], extra={"a": 1})
    after = store.get("r5")
    assert (after.id, after.created, after.owner, after.kind) == ("r5", before.created, before.owner, before.kind)
    assert (after.text, after.extra) == ("new text", {"a": 1})
    np.testing.assert_array_equal(after.vector, -vectors[5])
    assert store.search(-vectors[5], 1)[0].record == after
    assert before not in [hit.record for hit in store.search(vectors[5], 5)]
    store.update("r5", owner="Dee", kind="note")
    assert store.search(-vectors[5], 1, owner="Dee", kind="note")[0].record.text == "new text"
    assert [record.id for record in store.records()][-1] == "r5"
    assert (len(store), store.verify()) == (COUNT, [])
    with pytest.raises(RecordNotFound):
        store.update("x", text="t")
    with pytest.raises(InvalidRecord, match="kind is empty"):
        store.update("r5", kind="")


def test_several_are_deleted_or_none(store, vectors):
    store.search(vectors[0])
    with pytest.raises(RecordNotFound, match="'x'; nothing was deleted"):
        store.delete(["r1", "x"])
    assert len(store) == COUNT
    store.delete(f"r{i}" for i in range(10))
    assert len(store) == COUNT - 10
    expected = {record.id for record in store.records() if record.extra.get("story") != "s3"}
    assert store.delete_where(where={"story": "s3"}) == COUNT - 10 - len(expected)
    assert {hit.record.id for hit in store.search(vectors[0], COUNT)} == expected
    assert store.delete_where(owner="nobody") == 0
    with pytest.raises(InvalidArgument, match="would delete everything"):
        store.delete_where()
    assert store.verify() == []


def test_columns_are_added_as_records_are(folder, vectors):
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        texts = [f"t{i}" for i in range(5)]
        kinds, extras = ["a", "b", "a", "b", "a"], [{"i": i} for i in range(5)]
        ids = store.add_batch(vectors[:5], texts, kind=kinds, owner="Ada", extras=extras)
        assert len(set(ids)) == 5
        assert [(r.id, r.kind, r.owner, r.text, r.extra) for r in store.records()] == [
            (id, kind, "Ada", text, extra) for id, kind, text, extra in zip(ids, kinds, texts, extras, strict=True)
        ]
        assert store.add_batch(vectors[:0], [], kind="a") == []
        wide = np.asfortranarray(vectors[:4])
        store.add_batch(wide, texts[:4], kind="f", ids=["w", "x", "y", "z"])
        np.testing.assert_array_equal(store.get("y").vector, vectors[2])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"texts": ["a"]}, InvalidArgument, "texts has 1 entries for 2 vectors"),
        ({"texts": "ab"}, InvalidArgument, "texts is a str; expected a sequence of 2"),
        ({"texts": ["a", 3]}, InvalidArgument, r"texts\[1\] is 3"),
        ({"texts": ["a", "\ud800"]}, InvalidArgument, r"texts\[1\].*not valid text"),
        ({"kind": ["a", ""]}, InvalidArgument, r"kind\[1\] is empty"),
        ({"kind": ""}, InvalidArgument, r"kind\[0\] is empty"),
        ({"owner": [1, 2]}, InvalidArgument, r"owner\[0\] is 1"),
        ({"ids": ["a"]}, InvalidArgument, "ids has 1 entries"),
        ({"ids": ["a", "a"]}, ValueError, "id 'a' is in the store or twice"),
        ({"extras": [{}, {"a": {1}}]}, InvalidRecord, "not JSON"),
        ({"vectors": np.zeros((2, DIM), np.float32)}, ValueError, "vectors is all zeros"),
    ],
)
def test_a_column_that_does_not_fit_adds_nothing(folder, vectors, change, error, match):
    given = {"vectors": vectors[:2], "texts": ["a", "b"], "kind": "k"} | change
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        with pytest.raises(error, match=match):
            store.add_batch(given.pop("vectors"), given.pop("texts"), **given)
        assert len(store) == 0


def test_a_stream_is_added_batch_by_batch_and_tells_how_far_it_is(folder, vectors):
    def records():
        for i in range(25):
            yield NewRecord(id=f"r{i}", kind="k", text="t", vector=vectors[i])

    def failing():
        yield from records()
        raise ZeroDivisionError

    told = []
    with VectorStore.open(folder, encoder="e", dim=DIM) as store:
        assert store.add_stream(records(), batch=10, on_batch=told.append) == 25
        assert told == [10, 20, 25]
        store.delete_where(kind="k")
        with pytest.raises(ZeroDivisionError):
            store.add_stream(failing(), batch=10)
        assert len(store) == 20


@pytest.mark.parametrize(
    ("filters", "match"),
    [
        ({"where": {"a": {"like": 1}}}, "'like'; expected one of eq, in, lt, le, gt, ge"),
        ({"where": {"a": [[1]]}}, "expected text, number"),
        ({"where": {"a": {"lt": None}}}, "expected a number or text to compare"),
        ({"where": {"a": {"in": "text"}}}, "expected a list"),
        ({"where": {'a"b': 1}}, "without quotes"),
        ({"where": {"": 1}}, "cannot be asked for"),
        ({"where": [("a", 1)]}, "where is a list; expected a dict"),
        ({"where": {"a": 2**70}}, "64 bits"),
        ({"owner": ["x"] * 3 + [f"{i}" for i in range(600)]}, "owner has 601 values; expected at most 500"),
        ({"exclude": "r1"}, "exclude is 'r1'.*expected a collection"),
        ({"diversity": 2}, "diversity is 2; expected a number from 0 to 1"),
    ],
)
def test_senseless_filters_are_refused(store, vectors, filters, match):
    with pytest.raises(InvalidArgument, match=match):
        store.search(vectors[0], **filters)


def test_counts_and_sizes(store, folder, vectors):
    stats = store.stats()
    assert stats.records == sum(stats.kinds.values()) == sum(stats.owners.values()) == COUNT
    assert stats.kinds == {"span": 134, "terminal": 133, "voice": 133}
    assert stats.owners == {"": 100, "Ada": 100, "Ben": 100, "Cy": 100}
    assert (stats.built, stats.later, stats.tombstones, stats.index_bytes) == (COUNT, 0, 0, 0)
    assert stats.index_memory == COUNT * DIM * 4
    store.close()
    (file,) = folder.glob("index-*")
    with VectorStore.open(folder, readonly=True) as reader:
        stats = reader.stats()
        assert stats.index_bytes == file.stat().st_size
        assert stats.database_bytes >= (folder / "records.sqlite").stat().st_size
        assert stats.bytes_per_vector == (stats.database_bytes + stats.index_bytes) / COUNT
