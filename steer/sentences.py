"""Sentences: where they end in a text, and cutting what was written back to whole ones, on token borders."""

from collections.abc import Callable, Sequence

import regex

# Scripts that put no space between words: a character of theirs can begin a word, and a sentence, anywhere.
UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}"
    r"\p{Balinese}\p{New_Tai_Lue}\p{Tai_Le}\p{Tai_Tham}"
)
# Marks that end sentences in Unicode (STerm) but those of English: no space needs to follow.
_MARK = r"[\p{Sentence_Terminal}--[.!?]]"
_END = regex.compile(
    rf"""(?V1)[.!?]+["')\]\u2019\u201d]*(?=\s|$|[{UNSPACED}])|{_MARK}\p{{Sentence_Terminal}}*["'\p{{Pe}}\p{{Pf}}]*"""
)
_ABBREVIATIONS = ("mr.", "mrs.", "ms.", "dr.", "st.")

_FULL = regex.compile(r"""[^\p{Sentence_Terminal}]*(?:[.!?]+["')]*|\p{Sentence_Terminal}+["'\p{Pe}\p{Pf}]*)\s*""")


def sentence_ends(text: str) -> list[int]:
    """Offsets behind each sentence of a text: after its mark and closing quotes.

    Behind an English mark come white space, the end, or a script that puts no spaces; behind other marks (`。`, `؟`,
    `।`) anything may.
    """
    ends = []
    for match in _END.finditer(text):
        word = text[: match.end()].rsplit(maxsplit=1)[-1].lstrip("\"'(").lower()
        if word not in _ABBREVIATIONS:
            ends.append(match.end())
    return ends


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space around them; what follows the last one counts as one more."""
    starts = [0, *sentence_ends(text)]
    pieces = [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [piece for piece in pieces if piece]


def full_sentences(text: str) -> list[str]:
    """Sentences of a text, with their trailing white space; what follows the last full stop is dropped."""
    return _FULL.findall(text)


def keep_sentences(ids: Sequence[int], to_text: Callable[[Sequence[int]], str], *, single_line: bool) -> int:
    """How many of the tokens to keep so that they end with a whole sentence.

    With `single_line` a line break after some text ends the turn as well. Where there is neither, all tokens are kept.
    Tokens of nothing but white space are dropped at the end. A cut never splits a token, nor a character that spans
    several tokens: a prefix counts only if its text is a prefix of the whole text.

    Args:
        ids: what was written, without special tokens.
        to_text: text of the first tokens of `ids`.
        single_line: for scripts.

    Returns:
        Length of the prefix of `ids` to keep, from 0.
    """
    text = to_text(ids)
    prefixes = [(k, to_text(ids[:k])) for k in range(len(ids), 0, -1)]
    clean = [(k, prefix) for k, prefix in prefixes if text.startswith(prefix)]
    start = len(text) - len(text.lstrip())
    line_end = text.find("\n", start) if single_line else -1
    if line_end >= 0:
        wanted = [len(text[:line_end].rstrip())]
    else:
        # Without the first bytes of a character, which a turn may have ended in.
        wanted = sentence_ends(text)[-1:] or [len(text.rstrip().rstrip("\ufffd").rstrip())]
    # The longest prefix that says no more than wanted: it may stop short where a token reaches over the border.
    keep = next((k for k, prefix in clean if len(prefix.rstrip()) <= wanted[0]), 0)
    said = to_text(ids[:keep]).rstrip()
    while keep > 0 and to_text(ids[: keep - 1]).rstrip() == said:
        keep -= 1
    return keep
