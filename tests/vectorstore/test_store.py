"""Adding, reading and deleting records; several users of one store."""

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from vectorstore import (
    DuplicateId,
    EncoderMismatch,
    InvalidVector,
    Metric,
    NewRecord,
    RecordNotFound,
    VectorStore,
    VectorStoreError,
)
from vectorstore.table.database import open_database

DIM = 8
ENCODER = "test-encoder@1"


def test_records_come_back_as_they_went_in(store, folder, rng):
    vector = rng.normal(size=DIM).astype(np.float32) * 100
    extra = {"weight": 0.1, "nested": [1, {"a": None}], "flag": True, "ü": "\u2028", "big": 2**70}
    new = NewRecord(
        id="ß/'\"; --", kind="k", owner="Zoë", text="a\x00b\n🙂", vector=vector, extra=extra, encoder=ENCODER
    )
    assert store.add(new) == [new.id]
    store.close()
    with VectorStore.open(folder) as again:
        record = again.get(new.id or "")
        assert (record.id, record.kind, record.owner, record.text) == (new.id, "k", "Zoë", "a\x00b\n🙂")
        assert (record.encoder, record.extra) == (ENCODER, extra)
        assert record.vector.dtype == np.float32
        assert record.vector.tobytes() == vector.tobytes()
        created = datetime.fromisoformat(record.created)
        assert created.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
        record.vector[:] = 0  # the caller's own copy
        assert again.get(record.id).vector.tobytes() == vector.tobytes()


@pytest.mark.parametrize("kind", ["list", "float64", "integers", "array", "tensor"])
def test_vectors_come_as_whatever_numpy_takes(store, rng, kind):
    wanted = rng.integers(1, 9, size=(2, DIM)).astype(np.float32)
    given = {
        "list": lambda x: x.tolist(),
        "float64": lambda x: x.astype(np.float64),
        "integers": lambda x: x.astype(np.int64),
        "array": lambda x: x,
        "tensor": lambda x: pytest.importorskip("torch").from_numpy(x),
    }[kind]
    [id] = store.add(NewRecord(kind="k", text="t", vector=given(wanted[0])))
    [other] = store.add_batch(given(wanted[1:]), ["u"], kind="k")
    assert store.get(id).vector.tobytes() == wanted[0].tobytes()
    assert [hit.record.id for hit in store.search(given(wanted[1]), k=1)] == [other]
    assert [[hit.record.id for hit in row] for row in store.search(given(wanted), k=1)] == [[id], [other]]
    assert {hit.record.id for hit in store.search_range(given(wanted[0]), 0.999)} >= {id}
    store.update(id, vector=given(wanted[1]))
    assert store.get(id).vector.tobytes() == wanted[1].tobytes()


def test_records_are_equal_by_value(store, make):
    store.add(make(2))
    assert store.get("r0") == store.get("r0") != store.get("r1")
    assert len({store.get("r0"), store.get("r0")}) == 1
    assert store.get("r0") != "r0"


def test_missing_ids_are_drawn_at_random(store):
    same = [NewRecord(kind="k", text="t", vector=np.ones(DIM, np.float32)) for _ in range(3)]
    ids = store.add(iter(same)) + store.add(same[0])
    assert len(set(ids)) == 4
    assert [record.id for record in store.records()] == ids


def test_adding_nothing_is_fine(store):
    assert store.add([]) == []
    assert len(store) == 0


def test_insertion_order_and_filters_of_records(store, make):
    new = make(1203)  # more than a page
    store.add(new)
    store.delete("r600")
    left = [record for record in new if record.id != "r600"]
    assert [record.id for record in store.records()] == [record.id for record in left]
    for owner, kind in [("Ada", None), (None, "span"), ("", "terminal"), ("none such", None)]:
        expected = [r.id for r in left if owner in (None, r.owner) and kind in (None, r.kind)]
        assert [record.id for record in store.records(owner, kind)] == expected


def test_the_store_may_be_written_while_records_are_read(store, make):
    store.add(make(3))
    seen = []
    for record in store.records():
        seen.append(record.id)
        if record.id == "r0":
            store.add(make(600, start=10))
    assert len(seen) == 603


def test_a_record_that_is_updated_while_records_are_read_is_seen_once(store, make):
    store.add(make(700))  # more than a page
    seen = []
    for record in store.records():
        seen.append(record.id)
        store.update(record.id, text=f"{record.text}!")
        if record.id == "r0":
            store.update("r699", text="ahead")
    assert sorted(seen) == sorted(f"r{i}" for i in range(700))
    texts = {record.id: record.text for record in store.records()}
    assert texts["r699"] == "ahead!" and all(text.endswith("!") for text in texts.values())


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ({"id": "r0"}, DuplicateId),
        ({"id": "new0"}, DuplicateId),
        ({"vector": np.full(DIM, np.nan, np.float32)}, InvalidVector),
        ({"encoder": "other"}, EncoderMismatch),
    ],
)
def test_a_batch_with_one_bad_record_writes_nothing(store, make, spoil, error):
    store.add(make(1))
    good = {"kind": "k", "text": "t", "vector": np.ones(DIM, np.float32)}
    batch = [NewRecord(**good, id=f"new{i}") for i in range(3)] + [NewRecord(**{**good, "id": "bad", **spoil})]
    with pytest.raises(error):
        store.add(batch)
    assert [record.id for record in store.records()] == ["r0"]
    store.add(batch[:3])
    assert len(store) == 4
    assert store.verify() == []


def test_an_error_of_the_callers_iterator_writes_nothing_and_passes_through(store, make):
    def failing():
        yield from make(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add(failing())
    assert len(store) == 0


def test_a_deleted_id_is_gone_and_may_be_used_again(store, make):
    store.add(make(2))
    query = np.ones(DIM, np.float32)
    store.search(query)
    store.delete("r0")
    for use in (store.get, store.delete):
        with pytest.raises(RecordNotFound, match="^no record has the id 'r0'"):
            use("r0")
    assert [hit.record.id for hit in store.search(query)] == ["r1"]
    new = make(1)
    store.add(new)
    assert [record.id for record in store.records()] == ["r1", "r0"]
    np.testing.assert_array_equal(store.get("r0").vector, new[0].vector)
    assert store.verify() == []


def test_two_handles_see_what_each_other_committed(store, folder, make):
    query = np.ones(DIM, np.float32)
    with VectorStore.open(folder, encoder=ENCODER, dim=DIM) as other, VectorStore.open(folder, readonly=True) as reader:
        store.add(make(5))
        assert len(other.search(query)) == len(reader.search(query)) == 5
        other.add(make(5, start=5))
        store.delete("r0")
        other.delete("r9")
        store.add(make(1, start=20))
        expected = sorted(["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r20"])
        for handle in (store, other, reader):
            assert sorted(hit.record.id for hit in handle.search(query, 50)) == expected
            assert len(handle) == 9
            assert handle.verify() == []


def test_the_revision_changes_with_the_contents_and_with_nothing_else(store, folder, make):
    seen = [store.revision]
    store.add(make(20))
    seen.append(store.revision)
    store.update("r1", text="other")
    seen.append(store.revision)
    store.delete("r0")
    seen.append(store.revision)
    assert len(set(seen)) == 4
    store.search(np.ones(DIM, np.float32))
    store.optimize("hnsw")
    store.rebuild()
    store.compact()
    store.close()
    with VectorStore.open(folder, readonly=True) as again:
        assert again.revision == seen[-1]


def test_threads_may_share_a_store(store, make):
    failures: list[BaseException] = []

    def work(start):
        try:
            for record in make(10, start=start):
                store.add(record)
                assert store.search(record.vector, 1)[0].record.id == record.id
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store) == 40
    assert store.verify() == []


def test_leaving_the_block_closes_also_after_an_error(folder):
    with pytest.raises(VectorStoreError, match="closed"), VectorStore.open(folder, encoder="e", dim=2) as store:
        store.close()
        store.close()
        len(store)
    assert "closed" in repr(store)


def test_commits_wait_for_the_disk(folder):
    for _ in range(2):  # at creation and afterwards
        connection, _ = open_database(
            folder / "records.sqlite", encoder=ENCODER, dim=DIM, metric=Metric.COSINE, readonly=False
        )
        with closing(connection):
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_repr_says_what_it_is(store, folder):
    for part in (str(folder), ENCODER, f"dim={DIM}", "cosine", "open"):
        assert part in repr(store)
