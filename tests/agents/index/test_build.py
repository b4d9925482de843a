"""Building an index: whole documents per transaction, never twice, and the same however often it is stopped."""

from pathlib import Path

import numpy as np
import pytest

from agents.errors import IndexingError
from agents.index.build import BuildReport, build_index, open_index, passage_id, surroundings
from agents.index.passages import Cutter, Document
from steer.models.latent_model import LatentModel
from vectorstore import DuplicateId, EncoderMismatch, StoreNotFound

DOCUMENTS = [Document(f"{n}.txt", f"It was day {n}. They ran. They sat down. Then {n} was gone.") for n in range(7)]


def records_of(folder: Path, model: LatentModel) -> dict[str, tuple[str, str, bytes, str]]:
    with open_index(folder, model) as store:
        return {r.id: (r.owner, r.text, r.vector.tobytes(), str(r.extra)) for r in store.records()}


@pytest.fixture(scope="module")
def whole(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "whole"
    with open_index(folder, model, create=True) as store:
        build_index(model, store, DOCUMENTS, Cutter(model), batch=3)
    return folder


def test_every_passage_is_there_with_its_place(model: LatentModel, whole: Path) -> None:
    cutter = Cutter(model)
    found = records_of(whole, model)
    for document in DOCUMENTS:
        passages = cutter.passages(model.to_ids(document.text))
        for place, passage in enumerate(passages):
            owner, text, vector, extra = found.pop(passage_id(document.key(cutter.cut), place))
            assert (owner, text) == (document.source, model.to_text(passage).strip())
            assert np.frombuffer(vector, np.float32) == pytest.approx(model.encode_ids([passage])[0].numpy(), abs=1e-5)
            assert f"'position': {place}" in extra and f"'ending': {place == len(passages) - 1}" in extra
    assert not found


def test_what_is_there_is_left_alone(model: LatentModel, whole: Path) -> None:
    before = records_of(whole, model)
    with open_index(whole, model, create=True) as store:
        report = build_index(model, store, [Document("copy.txt", DOCUMENTS[2].text), *DOCUMENTS], Cutter(model))
    assert report == BuildReport(documents=8, known=8, empty=0, spans=0)
    assert records_of(whole, model) == before


def test_what_another_build_adds_meanwhile_is_left_to_it(
    model: LatentModel, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        open_index(tmp_path / "store", model, create=True) as store,
        open_index(tmp_path / "store", model, create=True) as other,
    ):
        add, times = store.add, []

        def late(records: object) -> list[str]:
            if not times:
                build_index(model, other, DOCUMENTS[2:4], Cutter(model))
            times.append(records)
            return add(records)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "add", late)
        report = build_index(model, store, DOCUMENTS, Cutter(model))
        assert (report.documents, report.known, len(times)) == (7, 2, 2)
    assert records_of(tmp_path / "store", model) == records_of(whole, model)


def test_an_id_that_is_taken_by_something_else_is_told(
    model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_index(tmp_path / "store", model, create=True) as store:

        def taken(records: object) -> list[str]:
            raise DuplicateId("id 'x' is in the store")

        monkeypatch.setattr(store, "add", taken)
        with pytest.raises(DuplicateId):
            build_index(model, store, DOCUMENTS, Cutter(model))


def test_what_was_deleted_of_a_document_does_not_come_back(model: LatentModel, tmp_path: Path) -> None:
    with open_index(tmp_path / "store", model, create=True) as store:
        build_index(model, store, DOCUMENTS[:2], Cutter(model))
        count = len(store)
        gone = [r.id for r in store.records() if r.owner == "0.txt" or r.extra["position"] == 0]
        for id in gone:
            store.delete(id)
        report = build_index(model, store, DOCUMENTS[:2], Cutter(model))
        # Of the first nothing was left, so it is new; of the second all but its first passage.
        assert (report.known, len(store)) == (1, count - 1)
        assert report.spans == sum(id.startswith(DOCUMENTS[0].key("sentences")) for id in gone)


def test_stopped_after_any_batch_it_goes_on_to_the_same(model: LatentModel, whole: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(report: BuildReport) -> None:
        if report.spans:
            raise Stop

    for documents in (2, 4, 6):
        with open_index(tmp_path / "store", model, create=True) as store:
            with pytest.raises(Stop):
                build_index(model, store, DOCUMENTS, Cutter(model), batch=2, on_batch=stop)
            assert len({record.owner for record in store.records()}) == documents
    with open_index(tmp_path / "store", model, create=True) as store:
        assert build_index(model, store, DOCUMENTS, Cutter(model), batch=2).known == 6
    found, expected = records_of(tmp_path / "store", model), records_of(whole, model)
    assert {id: row[:2] for id, row in found.items()} == {id: row[:2] for id, row in expected.items()}


def test_empty_documents_are_counted_and_twins_stored_once(model: LatentModel, tmp_path: Path) -> None:
    baseline = Document("baseline.txt", "Same.")
    with open_index(tmp_path / "store", model, create=True) as store:
        report = build_index(
            model, store, [baseline, Document("again.txt", "Same."), Document("no.txt", "")], Cutter(model)
        )
        assert (report.documents, report.known, report.empty, len(store)) == (3, 1, 1, report.spans)


def test_surroundings_stop_at_the_ends(model: LatentModel, whole: Path) -> None:
    with open_index(whole, model) as store:
        story = [r for r in store.records() if r.owner == "3.txt"]
        texts = [r.text for r in sorted(story, key=lambda r: r.extra["position"])]
        middle = next(r for r in story if r.extra["position"] == 1)
        assert surroundings(store, middle, 1) == ([texts[0]], [texts[2]])
        assert surroundings(store, middle, 99) == ([texts[0]], texts[2:])
        assert surroundings(store, middle, 0) == ([], [])


def test_surroundings_leave_out_what_was_deleted(model: LatentModel, tmp_path: Path) -> None:
    with open_index(tmp_path / "store", model, create=True) as store:
        build_index(model, store, DOCUMENTS[:1], Cutter(model))
        first, second, *rest = sorted(store.records(), key=lambda record: record.extra["position"])
        store.delete(rest[0].id)
        assert surroundings(store, second, 99) == ([first.text], [record.text for record in rest[1:]])


def test_bad_input_is_told(model: LatentModel, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="no store at"):
        open_index(tmp_path / "none", model)
    with open_index(tmp_path / "store", model, create=True) as store:
        with pytest.raises(IndexingError, match="a document of bad.txt cannot be indexed"):
            build_index(model, store, [Document("bad.txt", "half a \ud800")], Cutter(model))
        with pytest.raises(IndexingError, match="batch is 0"):
            build_index(model, store, DOCUMENTS, Cutter(model), batch=0)
        assert len(store) == 0


def test_an_index_of_another_encoder_is_refused(model: LatentModel, whole: Path) -> None:
    other = model.latent_config.model_copy(update={"encoder_id": "another"})
    assert other.encoder_identity == "another"
    mine, model.latent_config = model.latent_config, other
    try:
        with pytest.raises(EncoderMismatch):
            open_index(whole, model)
    finally:
        model.latent_config = mine
