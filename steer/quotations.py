"""Quotations: whether words of one text stand in another, in any script and however they are written.

Texts are compared in two forms. Both are what Unicode calls compatible (NFKC): full-width letters are letters, and an
accent is one whether it is a character of its own or not; characters that cannot be seen are dropped. The plain form
folds capitals; the other one also takes each character for the Latin letter that it looks like (Unicode's table of
confusables), and drops accents. What stands between words, or between the letters of one, does not count.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# Words in a row that make a quotation of a text, where it has so many; a shorter text counts whole.
SHARED_WORDS = 5
# Scripts without spaces, whose characters are counted, and how many of them make a word, about.
_IDEOGRAPHS = re.compile("[\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3100-\u312f\u31a0-\u31ff\u3400-\u9fff\uf900-\ufaff"
                         "\U00020000-\U0003ffff]")  # fmt: skip
_UNSPACED = re.compile("[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\uaa7f]")
_PER_WORD = {"ideograph": 2, "unspaced": 4}
# Without the spaces between them, so many characters in a row are no chance.
_SQUEEZED = 12
# Unseen, though Unicode's category does not say so: joiners of graphemes, fillers of Hangul, selectors of variants.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
# Letters that look alike among themselves, once capitals are folded.
_ALIKE = str.maketrans({"0": "o", "1": "l", "|": "l", "i": "l", "\u0131": "l"})
_PAIRS = (("rn", "m"), ("vv", "w"))
_COMBINED = ord(
    "\u0530"
)  # accents on letters below (Latin, Greek, Cyrillic) can be left out; elsewhere they are vowels


@dataclass(frozen=True)
class _Token:
    """A word, or a character of a script without spaces, or a symbol.

    Attributes:
        plain, alike: in both forms.
        share: of a word.
    """

    plain: str
    alike: str
    share: float


def shared_words(text: str, visible: str) -> str | None:
    """The first run of five words of a text (or all of it, if it has fewer) that stands in the visible text.

    In scripts without spaces ten characters (Chinese, Japanese) or twenty (Thai and its neighbours) stand for five
    words. White space, punctuation and what cannot be seen are passed over, also within words where twelve letters or
    more agree.
    """
    tokens, seen = _tokens(text), _seen(visible)
    for run in _runs(tokens):
        if any(seen.holds([getattr(token, form) for token in run], form) for form in ("plain", "alike")):
            return "".join(f" {token.plain}" if token.share == 1 else token.plain for token in run).strip()
    return None


def _runs(tokens: Sequence[_Token]) -> list[Sequence[_Token]]:
    """All shortest runs of tokens that make `SHARED_WORDS` words; all of them, where there are fewer."""
    runs, end, words = [], 0, 0.0
    for start, token in enumerate(tokens):
        while words < SHARED_WORDS and end < len(tokens):
            words += tokens[end].share
            end += 1
        if words < SHARED_WORDS and start:
            break
        runs.append(tokens[start:end])
        words -= token.share
    return runs


class _Seen:
    """A visible text, to look for runs of tokens in."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = {form: [getattr(token, form) for token in tokens] for form in ("plain", "alike")}
        self._squeezed = {form: "".join(own) for form, own in self._tokens.items()}
        self._runs: dict[tuple[str, int], set[tuple[str, ...]]] = {}
        self._spelled = {form: _spelled(own) for form, own in self._tokens.items()}

    def holds(self, run: Sequence[str], form: str) -> bool:
        """Whether a run stands in it, word by word, or without the borders of words."""
        own, n = self._tokens[form], len(run)
        if (form, n) not in self._runs:
            self._runs[form, n] = {tuple(own[i : i + n]) for i in range(len(own) - n + 1)}
        squeezed = "".join(run)
        return (
            tuple(run) in self._runs[form, n]
            or (len(squeezed) >= _SQUEEZED and squeezed in self._squeezed[form])
            or squeezed in self._spelled[form]
        )


def _spelled(words: Sequence[str]) -> set[str]:
    """Words that are spelled, `f o x`: letters that stand alone, three or more of them, in a row."""
    found, letters = set(), ""
    for word in (*words, "  "):
        if len(word) == 1:
            letters += word
            continue
        if len(letters) > 2:
            found.add(letters)
        letters = ""
    return found


@functools.lru_cache(maxsize=16)
def _seen(text: str) -> _Seen:
    return _Seen(_tokens(text))


@functools.lru_cache(maxsize=1024)
def _tokens(text: str) -> tuple[_Token, ...]:
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii():
        text = "".join(c for c in _UNSEEN.sub("", text) if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    tokens, word = [], ""
    for character in (*text, " "):
        kind = unicodedata.category(character)[0]
        if _IDEOGRAPHS.match(character) or _UNSPACED.match(character) or kind == "S":
            tokens += [_word(word)] if word else []
            tokens.append(_word(character))
            word = ""
        elif kind in "LNM":
            word += character
        elif word and not (character in "'\u2019\u2018\u02bc" and kind != "Z"):
            tokens.append(_word(word))
            word = ""
    return tuple(tokens)


def _word(word: str) -> _Token:
    share = 1.0
    for pattern, kind in ((_IDEOGRAPHS, "ideograph"), (_UNSPACED, "unspaced")):
        if pattern.match(word):
            share = 1 / _PER_WORD[kind]
    return _Token(word.casefold(), _alike(word), share)


def _alike(word: str) -> str:
    """A word in Latin letters that look the same."""
    if not word.isascii():
        table, letters, low = _look_alikes(), [], False
        for character in unicodedata.normalize("NFD", word):
            if unicodedata.category(character) == "Mn" and low:
                continue
            low = ord(character) < _COMBINED
            letters.append(table.get(character, character))
        word = "".join(letters)
    word = word.casefold().translate(_ALIKE)
    for pair, letter in _PAIRS:
        word = word.replace(pair, letter)
    return word


@functools.cache
def _look_alikes() -> dict[str, str]:
    """Characters beyond ASCII by the letter of ASCII that they look like."""
    from confusable_homoglyphs.confusables import confusables_data

    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return {
        alike["c"]: letter
        for letter in reversed(letters)  # a small letter wins
        for alike in confusables_data.get(letter, ())
        if len(alike["c"]) == 1 and not alike["c"].isascii()
    }
