"""What can be counted in a text without any model: words, names and numbers, variety, speech, sentences."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from steer.sentences import split_sentences

_WORD = re.compile(r"[a-z0-9]+(?:['\u2019][a-z]+)*", re.IGNORECASE)
_QUOTES = str.maketrans("\u201c\u201d", '""')
# Words that say little about what happens; names and all nouns, verbs and adjectives of content stay.
_EMPTY = frozenset(
    "a about after again all also am an and any are as at away back be because been before behind being but by "
    "can could did do does down each even every for from get go goes going gone got had has have he her here hers "
    "herself him himself his how i if in into is it its itself just like me more most much my myself no nor not "
    "now of off on once one only onto or other our ours out over own said same say says she should so some still "
    "such than that the their theirs them themselves then there these they this those through to too two under "
    "until up upon us very was way we went were what when where which while who whom whose why will with would "
    "you your yours".split()
)
_NUMBERS = frozenset("two three four five six seven eight nine ten eleven twelve twenty thirty hundred".split())


def words(text: str) -> list[str]:
    """Words of a text in small letters, without marks."""
    return _WORD.findall(text.lower())


def content_words(text: str) -> set[str]:
    """The words of a text that say what happens."""
    return set(words(text)) - _EMPTY


def names(text: str) -> set[str]:
    """Names of a text in small letters: words with a capital that do not begin a sentence, but for I."""
    return {word.lower() for word in _inner_words(text) if word[0].isupper() and word.partition("'")[0] != "I"}


def numbers(text: str) -> set[str]:
    """Numbers of a text from two: figures, and the words for small ones."""
    return {word for word in words(text) if word in _NUMBERS or word.isdigit()}


def distinct(text: str, size: int) -> float:
    """Different runs of `size` neighbouring words over all such runs; NaN where there is none."""
    grams = _grams(text, size)
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition(text: str, size: int = 4) -> float:
    """Share of a text's runs of `size` words that stand in it more than once; NaN where there is none."""
    grams = Counter(_grams(text, size))
    return sum(n for n in grams.values() if n > 1) / grams.total() if grams else math.nan


def speech_share(text: str) -> float:
    """Share of a text's words that stand in double quotes; NaN without words.

    A quote that is never closed ends with its line, so that one lost mark does not turn the rest inside out. Single
    quotes are apostrophes too often to be counted.
    """
    spoken = total = 0
    for line in text.translate(_QUOTES).splitlines():
        for place, part in enumerate(line.split('"')):
            count = len(words(part))
            total += count
            spoken += count if place % 2 else 0
    return spoken / total if total else math.nan


def sentence_words(text: str) -> float:
    """Mean number of words of a text's sentences; NaN without words. A sentence that was cut off at the end counts."""
    counts = [count for sentence in split_sentences(text) if (count := len(words(sentence)))]
    return sum(counts) / len(counts) if counts else math.nan


def _inner_words(text: str) -> Iterator[str]:
    """Words as they are written, without those that begin a sentence or a quotation."""
    for sentence in split_sentences(text.translate(_QUOTES)):
        for part in sentence.split('"'):
            yield from _WORD.findall(part)[1:]


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
    found = words(text)
    return list(zip(*(found[i:] for i in range(size)), strict=False))
