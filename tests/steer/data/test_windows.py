"""Training examples: rows depend on seed and index only, and evidence is a part of its span."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from steer.data.corpus import TokenCorpus, tokenize_stories
from steer.data.windows import SpanDataset, collate, sentence_ends

EOS, S, N, C = 256, 8, 3, 12
ENDS = np.zeros(258, bool)
ENDS[[ord(c) for c in ".!?"]] = True


def corpus_of(texts: list[str]) -> TokenCorpus:
    return tokenize_stories(texts, lambda rows: [list(r.encode()) for r in rows], eos_id=EOS, vocab_size=258)


STORIES = [f"Story {i}. It ran! So did I? Yes it did, we went on and on. The end." for i in range(9)] + ["Hi."]


def dataset(corpus: TokenCorpus | None = None, repeats: np.ndarray | None = None, **options: Any) -> SpanDataset:
    settings: dict[str, Any] = {
        "length": 100,
        "spans": N,
        "span_tokens": S,
        "context_tokens": C,
        "eos_id": EOS,
        "partial_prob": 0.5,
        "ends": ENDS,
        "seed": 0,
    }
    return SpanDataset(corpus or corpus_of(STORIES), repeats, **{**settings, **options})


def equal(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one)


def test_a_row_depends_on_seed_and_index_only() -> None:
    first, second = dataset(), dataset(length=7)
    backwards = [second[i] for i in reversed(range(7))][::-1]
    for i in range(7):
        assert equal(first[i], backwards[i])
        assert equal(first[i], first[i])
    assert not equal(first[0], {**first[1], "index": first[0]["index"]})
    assert not equal(first[0], dataset(seed=1)[0])
    assert len(first) == 100


def test_spans_are_consecutive_text_of_one_story_and_context_is_what_stands_before() -> None:
    corpus = corpus_of(STORIES)
    whole = corpus.tokens.astype(np.int64)
    for i in range(100):
        row = dataset(corpus)[i]
        flat, mask = row["spans"].ravel(), row["span_mask"].ravel()
        count = int(mask.sum())
        assert count > 0
        assert mask[:count].all()
        assert not flat[count:].any()
        assert EOS not in flat[: count - 1]
        assert count == N * S or flat[count - 1] == EOS
        fits = [
            p
            for p in range(len(whole) - count + 1)
            if np.array_equal(whole[p : p + count], flat[:count])
            and np.array_equal(np.concatenate([np.full(C, EOS), whole[:p]])[-C:], row["context"])
        ]
        assert fits, i


def test_evidence_is_a_part_of_its_span_in_order() -> None:
    partial = whole = 0
    rows = dataset(partial_prob=1.0)
    for i in range(100):
        row = rows[i]
        for span, mask, seen, seen_mask in zip(
            row["spans"], row["span_mask"], row["evidence"], row["evidence_mask"], strict=True
        ):
            ids, part = span[mask == 1].tolist(), seen[seen_mask == 1].tolist()
            assert seen_mask[: len(part)].all()
            assert not seen[len(part) :].any()
            assert bool(part) == bool(ids)
            left = iter(ids)
            assert all(token in left for token in part)
            partial += part != ids
            whole += part == ids
    assert partial > whole


def test_without_partial_share_the_evidence_is_the_span() -> None:
    rows = dataset(partial_prob=0.0)
    for i in range(30):
        assert np.array_equal(rows[i]["evidence"], rows[i]["spans"])
        assert np.array_equal(rows[i]["evidence_mask"], rows[i]["span_mask"])


def test_some_evidence_is_one_whole_sentence() -> None:
    corpus = corpus_of(["He ran. She hid. It ate. We sat. " * 4])
    rows = dataset(corpus, span_tokens=24, spans=1, partial_prob=1.0, length=200)
    texts = ["".join(map(chr, r["evidence"][0][r["evidence_mask"][0] == 1])) for r in map(rows.__getitem__, range(200))]
    assert sum(text.strip() in ("He ran.", "She hid.", "It ate.", "We sat.") for text in texts) > 60


def test_stories_come_as_often_as_length_and_repeats_say() -> None:
    corpus = corpus_of(["a" * 99, "b" * 99, "c" * 199])
    rows = dataset(corpus, np.array([1.0, 3.0, 0.5]), length=1000)
    counts = dict.fromkeys("abc", 0)
    for i in range(1000):
        counts[chr(rows[i]["spans"][0, 0])] += 1
    for letter, share in (("a", 0.2), ("b", 0.6), ("c", 0.2)):
        assert abs(counts[letter] / 1000 - share) < 0.05


def test_a_story_shorter_than_a_span_is_padded() -> None:
    row = dataset(corpus_of(["Hi."]))[0]
    assert row["spans"][0].tolist() == [72, 105, 46, EOS, 0, 0, 0, 0]
    assert row["span_mask"].sum() == 4
    assert (row["context"] == EOS).all()


def test_collating_stacks_rows() -> None:
    rows = dataset()
    batch = collate([rows[3], rows[5]])
    assert {name: tuple(t.shape) for name, t in batch.items()} == {
        "index": (2,),
        "context": (2, C),
        "spans": (2, N, S),
        "span_mask": (2, N, S),
        "evidence": (2, N, S),
        "evidence_mask": (2, N, S),
    }
    assert {t.dtype for t in batch.values()} == {torch.int64}
    assert batch["index"].tolist() == [3, 5]


def test_sentence_ends_are_found_in_a_tokenizer(tiny_llama: Path) -> None:
    ends = sentence_ends(AutoTokenizer.from_pretrained(tiny_llama))
    assert ends.shape == (258,)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    assert {tokenizer.decode([int(i)]) for i in np.flatnonzero(ends)} == {".", "!", "?"}


@pytest.mark.parametrize("spans", [1, 6])
def test_the_first_span_is_never_empty(spans: int) -> None:
    rows = dataset(spans=spans)
    assert all(rows[i]["span_mask"][0, 0] == 1 for i in range(100))
