"""Where sentences end, and cutting on token borders."""

from collections.abc import Sequence

import pytest

from steer.sentences import keep_sentences, sentence_ends, split_sentences


def cut(pieces: Sequence[str | bytes], *, single_line: bool = False) -> str:
    """What is kept of tokens that stand for these pieces."""
    raw = [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces]

    def to_text(ids: Sequence[int]) -> str:
        return b"".join(raw[i] for i in ids).decode("utf-8", "replace")

    ids = list(range(len(raw)))
    return to_text(ids[: keep_sentences(ids, to_text, single_line=single_line)])


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said, "Go." Then he ran', ['He said, "Go."', "Then he ran"]),
        ("Mr. Fox met Dr. Owl. They ate 3.5 cakes...", ["Mr. Fox met Dr. Owl.", "They ate 3.5 cakes..."]),
        ("No end", ["No end"]),
        ("  ", []),
        ("看到一只大狗。她很高兴！真的？", ["看到一只大狗。", "她很高兴！", "真的？"]),
        ("彼は「行け。」と言った。終わり", ["彼は「行け。」", "と言った。", "終わり"]),
        ("看到狗!她回家. 好", ["看到狗!", "她回家.", "好"]),
        ("کیا؟ ہاں۔ नमस्ते। हाँ॥", ["کیا؟", "ہاں۔", "नमस्ते।", "हाँ॥"]),
        ("It cost 3.5, e.g. a lot…yes", ["It cost 3.5, e.g.", "a lot…yes"]),
    ],
)
def test_split(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences
    assert all(text[:end].strip() for end in sentence_ends(text))


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        (["The", " fox", " ran", ".", " The", " bird"], "The fox ran."),
        (["Hi", "!", '"', " she"], 'Hi!"'),
        (["No", " end", " here"], "No end here"),
        (["No", " end", " ", "\n"], "No end"),
        (["Done", ".", "\n", "\n", "Next"], "Done."),
        (["Mr", ".", " Fox"], "Mr. Fox"),
        (["One", ". Two", " more"], "One"),  # a token that reaches over the border is left out whole
        (["看到狗", "。", "她", "回".encode()[:2]], "看到狗。"),
        (["她", "很", "回".encode()[:2]], "她很"),  # half a character is no end of a turn
        ([" ", "\n"], ""),
        ([], ""),
    ],
)
def test_cut_to_sentences(pieces: list[str], kept: str) -> None:
    assert cut(pieces) == kept


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        ([" I", " am", " here", "\n", "Bird", ":", " Hm", "."], " I am here"),
        ([" One", ".", " Two", "\n", "x"], " One. Two"),
        ([" One", ".", " Two"], " One."),
        (["\n", " Late", " start", "\n", "x"], "\n Late start"),
        ([" One", ".\n", "x"], " One.\n"),
    ],
)
def test_cut_at_the_end_of_a_line(pieces: list[str], kept: str) -> None:
    # A token that holds the mark and the line break stays whole.
    assert cut(pieces, single_line=True) == kept


def test_a_character_of_several_tokens_is_not_split() -> None:
    euro = "\u20ac".encode()
    assert cut(["A", " \u201cyes", ".", euro[:1], euro[1:2], euro[2:], "."]) == "A \u201cyes.\u20ac."
    assert cut(["Ok", ".", " ", euro[:1], euro[1:2], euro[2:]]) == "Ok."
