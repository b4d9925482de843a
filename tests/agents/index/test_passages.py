"""Documents and their passages: nothing is lost, sentences stay whole where they can, files are read as they come."""

import gzip
import json
from pathlib import Path

import pytest

from agents.errors import IndexingError
from agents.index.passages import Cutter, Document, read_documents
from steer.errors import CorpusError
from steer.models.latent_model import LatentModel

TEXTS = ["A b.", "One two. Three four! Five? Six seven eight nine ten.", "no end at all here", "A.B.C.D.E.F.G.", " "]


@pytest.mark.parametrize("cut", ["sentences", "tokens"])
@pytest.mark.parametrize("text", TEXTS)
def test_passages_make_up_the_text_and_fit_a_span(model: LatentModel, cut: str, text: str) -> None:
    ids = model.to_ids(text)
    passages = Cutter(model, cut).passages(ids)  # type: ignore[arg-type]
    assert [token for passage in passages for token in passage] == ids
    assert all(0 < len(passage) <= model.span_tokens for passage in passages)


def test_cut_at_tokens_all_but_the_last_are_full(model: LatentModel) -> None:
    lengths = [len(passage) for passage in Cutter(model, "tokens").passages(model.to_ids("x" * 19))]
    assert lengths == [8, 8, 3]


def test_cut_at_sentences_as_many_as_fit_are_together(model: LatentModel) -> None:
    """A span has 8 bytes here."""
    passages = Cutter(model, "sentences").passages(model.to_ids("Hi. Ho. Ha. Me too. It is a long one."))
    assert [model.to_text(passage) for passage in passages] == [
        "Hi. Ho.",
        " Ha.",
        " Me too.",
        " It is a",
        " long",
        " one.",
    ]


def test_a_closing_quote_stays_with_its_sentence(model: LatentModel) -> None:
    passages = Cutter(model, "sentences").passages(model.to_ids('"Go on." So he'))
    assert model.to_text(passages[0]) == '"Go on."'


def test_no_tokens_no_passages(model: LatentModel) -> None:
    assert Cutter(model).passages([]) == []


def test_the_key_is_of_text_and_cut_alone() -> None:
    a = Document("a.txt", "Once.")
    assert a.key("tokens") == Document("b.txt", "Once.").key("tokens")
    assert len({a.key("tokens"), a.key("sentences"), Document("a.txt", "Twice.").key("tokens")}) == 3


def test_files_and_folders_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("One.\n<|endoftext|>\nTwo.\n", encoding="utf-8")
    (tmp_path / "a.md").write_text("# Title\n", encoding="utf-8")
    (tmp_path / "deep" / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": "Three."}).encode()))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    found = [(d.source, d.text) for d in read_documents([tmp_path])]
    assert found == [("a.md", "# Title"), ("b.txt", "One."), ("b.txt", "Two."), ("deep/c.jsonl.gz", "Three.")]
    assert [d.text for d in read_documents([tmp_path / "b.txt", tmp_path / "a.md"])] == ["One.", "Two.", "# Title"]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="holds nothing to index"):
        list(read_documents([tmp_path]))
    with pytest.raises(CorpusError, match="no file or folder"):
        list(read_documents([tmp_path / "missing.txt"]))
