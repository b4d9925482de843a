"""Reading stories from every kind of file, splitting, tokenising, packing."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from steer.data.corpus import TokenCorpus, is_validation, pack_blocks, read_stories, tokenize_stories
from steer.errors import CorpusError
from steer.training.prepare import load_splits
from steer.training.recipe import DataRecipe

STORIES = ["One fox.\nTwo lines.", "Naïve “dogs”.", "The end <|endoftext|> inside a line stays."]
TEXT = "\n<|endoftext|>\n".join(STORIES)
JSON_LINES = "\n".join(json.dumps({"text": story, "id": i}) for i, story in enumerate(STORIES)) + "\n"


def write(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def by_bytes(texts: list[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
def test_every_format_gives_the_same_stories(tmp_path: Path, name: str, encoding: str) -> None:
    path = write(tmp_path / name, JSON_LINES if "jsonl" in name else TEXT, encoding=encoding)
    assert list(read_stories(path)) == STORIES
    assert list(read_stories(str(path))) == STORIES


def test_separators_with_spaces_and_other_line_ends_and_empty_stories(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"<|endoftext|>\r\n  \r\n<|endoftext|> \r\nA.\r\n\r\nB.\r\n <|endoftext|>\r\n\r\n")
    assert list(read_stories(path)) == ["A.\n\nB."]
    assert list(read_stories(write(tmp_path / "empty.txt", ""))) == []
    assert list(read_stories(write(tmp_path / "empty.jsonl.gz", ""))) == []


def test_json_lines_may_name_another_field_and_hold_empty_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"story": " A. "}\n\n{"story": ""}\n{"story": null}\n{"story": "B."}')
    assert list(read_stories(path, text_field="story")) == ["A.", "B."]


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', "3", "null", '{"body": "A."}'])
def test_a_bad_json_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "A."}\n' + line + "\n")
    with pytest.raises(CorpusError, match="a.jsonl line 2: expected a JSON object with a field 'text'"):
        list(read_stories(path))


def test_a_lone_surrogate_in_json_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "A."}\n{"text": "bad \\ud800 text"}\n')
    with pytest.raises(CorpusError, match="a.jsonl line 2.*surrogate"):
        list(read_stories(path))


def test_a_folder_is_read_in_name_order(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", '{"text": "second"}')
    write(tmp_path / "a.txt.gz", "first")
    write(tmp_path / "README.md", "not a story")
    assert list(read_stories(tmp_path)) == ["first", "second"]


def test_a_folder_without_stories_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "not a story")
    with pytest.raises(CorpusError, match=r"holds no training text; expected files named \*.txt, \*.txt.gz"):
        list(read_stories(tmp_path))


@pytest.mark.parametrize("name", ["nowhere.txt", "/nowhere/data", "./nowhere", "nowhere.jsonl.gz"])
def test_what_is_not_there_is_named(name: str) -> None:
    with pytest.raises(CorpusError, match="no file or folder at .*nowhere.*--data-root"):
        list(read_stories(name))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_other_encodings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match="is not UTF-8 text"):
        list(read_stories(write(tmp_path / name, TEXT, encoding="cp1252")))


def damage(data: bytes) -> dict[str, bytes]:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    return {
        "truncated": data[: len(data) // 2],
        "plain": b"not packed at all",
        "header": data[:5],
        "flipped": bytes(flipped),
        "block": data[:10] + b"\xff" + data[11:],
        "checksum": data[:-8] + b"\0" * 8,
    }


@pytest.mark.parametrize("kind", ["truncated", "plain", "header", "flipped", "block", "checksum"])
def test_damaged_gzip_files_are_named(tmp_path: Path, kind: str) -> None:
    text = "".join(f"story {i * i} is here\n" for i in range(3000))
    (tmp_path / "a.txt.gz").write_bytes(damage(gzip.compress(text.encode()))[kind])
    with pytest.raises(CorpusError, match="a.txt.gz (is named .gz but cannot be unpacked|is not UTF-8)"):
        list(read_stories(tmp_path / "a.txt.gz"))


# Splitting ------------------------------------------------------------------------------------------------------------


def test_the_validation_split_depends_on_a_storys_text_alone() -> None:
    stories = [f"story {i}" for i in range(4000)]
    chosen = {s for s in stories if is_validation(s, 0.05)}
    assert 120 < len(chosen) < 280
    assert chosen == {s for s in reversed(stories) if is_validation(s, 0.05)}
    assert chosen < {s for s in stories if is_validation(s, 0.1)}
    assert not any(is_validation(s, 0.0) for s in stories)


def test_splits_are_disjoint_complete_and_the_same_when_sources_move(tmp_path: Path) -> None:
    stories = [f"The {i}. fox." for i in range(300)]
    separator = "\n<|endoftext|>\n"
    write(tmp_path / "a.txt", separator.join(stories[:200]))
    write(tmp_path / "b.txt", separator.join(stories[200:]))
    sources = [{"path": "a.txt", "repeat": 2}, {"path": "b.txt", "repeat": 0.5}]
    results = []
    for order in (sources, sources[::-1]):
        data = DataRecipe.model_validate({"sources": order, "validation_share": 0.2})
        train, repeats, validation = load_splits(data, tmp_path)
        assert len(train) == len(repeats)
        assert not set(train) & set(validation)
        assert set(train) | set(validation) == set(stories)
        assert {story: repeat for story, repeat in zip(train, repeats, strict=True)} == {
            story: 2 if story in stories[:200] else 0.5 for story in train
        }
        results.append(set(validation))
    assert results[0] == results[1]


def test_a_split_that_stays_empty_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "only one")
    data = DataRecipe.model_validate({"sources": [{"path": "a.txt"}], "validation_share": 0.1})
    with pytest.raises(CorpusError, match="both splits need some: add text"):
        load_splits(data, tmp_path)


# Tokens ---------------------------------------------------------------------------------------------------------------


def corpus_of(texts: list[str]) -> TokenCorpus:
    return tokenize_stories(texts, by_bytes, eos_id=256, vocab_size=258)


def test_each_story_ends_with_the_end_token() -> None:
    corpus = corpus_of(["ab", "", "c"])
    assert len(corpus) == 3
    assert [corpus.story(i).tolist() for i in range(3)] == [[97, 98, 256], [256], [99, 256]]
    assert corpus.tokens.dtype == np.uint16
    assert tokenize_stories(["a"], by_bytes, eos_id=70_000, vocab_size=70_001).tokens.dtype == np.uint32


def test_stories_are_encoded_in_batches_and_keep_their_order() -> None:
    sizes = []

    def encode(texts: list[str]) -> list[list[int]]:
        sizes.append(len(texts))
        return by_bytes(texts)

    texts = [f"{i}" for i in range(2500)]
    corpus = tokenize_stories(texts, encode, eos_id=256, vocab_size=258)
    assert sizes == [1000, 1000, 500]
    assert bytes(corpus.story(2499)[:-1].astype(np.uint8)) == b"2499"
    with pytest.raises(CorpusError, match="no stories to tokenise"):
        corpus_of([])


def test_a_saved_corpus_loads_as_it_was(tmp_path: Path) -> None:
    corpus = corpus_of(STORIES)
    corpus.save(tmp_path / "c")
    loaded = TokenCorpus.load(tmp_path / "c")
    assert isinstance(loaded.tokens, np.memmap)
    assert np.array_equal(loaded.tokens, corpus.tokens)
    assert np.array_equal(loaded.offsets, corpus.offsets)


@pytest.mark.parametrize(
    "harm",
    [
        lambda f: (f / "offsets.npy").unlink(),
        lambda f: (f / "tokens.npy").unlink(),
        lambda f: (f / "tokens.npy").write_bytes((f / "tokens.npy").read_bytes()[:-10]),
        lambda f: (f / "offsets.npy").write_bytes(b""),
        lambda f: np.save(f / "offsets.npy", np.array([0, 3])),
        lambda f: np.save(f / "offsets.npy", np.array([0])),
    ],
)
def test_a_damaged_corpus_says_what_to_do(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    corpus_of(STORIES).save(tmp_path / "c")
    harm(tmp_path / "c")
    with pytest.raises(CorpusError, match="delete the folder and run the stage again"):
        TokenCorpus.load(tmp_path / "c")


def test_blocks_hold_whole_stories_in_shuffled_order() -> None:
    corpus = corpus_of([f"{i:03d}" for i in range(50)])
    blocks = pack_blocks(corpus, 8, np.random.default_rng(0))
    assert blocks.shape == (25, 8)
    assert blocks.dtype == np.int32
    stories = ["".join(map(chr, row)) for row in blocks.reshape(-1, 4)[:, :3]]
    assert sorted(stories) == [f"{i:03d}" for i in range(50)] != stories
    assert (blocks.reshape(-1, 4)[:, 3] == 256).all()
    assert np.array_equal(blocks, pack_blocks(corpus, 8, np.random.default_rng(0)))
    assert pack_blocks(corpus, 7, np.random.default_rng(0)).shape == (28, 7)


def test_stories_occur_as_often_as_their_repeats_say() -> None:
    corpus = corpus_of(["a", "b", "c", "d"])
    repeats = np.array([2.0, 0.0, 1.0, 0.5])
    counts = np.zeros(4)
    for seed in range(200):
        blocks = pack_blocks(corpus, 2, np.random.default_rng(seed), repeats)
        counts += [(blocks == ord(c)).sum() for c in "abcd"]
    assert counts[:3].tolist() == [400, 0, 200]
    assert 70 < counts[3] < 130


def test_too_little_text_for_one_block_is_an_error() -> None:
    with pytest.raises(CorpusError, match="has 2 tokens, fewer than one block of 8"):
        pack_blocks(corpus_of(["a"]), 8, np.random.default_rng(0))
    with pytest.raises(CorpusError, match="has 0 tokens, fewer than one block of 8"):
        pack_blocks(corpus_of(["a"]), 8, np.random.default_rng(0), np.array([0.0]))
