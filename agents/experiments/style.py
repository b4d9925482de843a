"""The manner of a text in two plain numbers, for experiments with voices; lexical, and blind to everything else."""

import re

from agents.sentences import split_sentences

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_QUOTES = str.maketrans("\u201c\u201d", '""')


def speech_share(text: str) -> float:
    """Share of a text's words that stand in double quotes; NaN without words.

    A quote that is never closed ends with its line, so that one lost mark does not turn the rest inside out. Single
    quotes are apostrophes too often to be counted.
    """
    spoken = total = 0
    for line in text.translate(_QUOTES).splitlines():
        for place, part in enumerate(line.split('"')):
            count = len(_WORD.findall(part))
            total += count
            spoken += count if place % 2 else 0
    return spoken / total if total else float("nan")


def sentence_words(text: str) -> float:
    """Mean number of words of a text's sentences; NaN without words. A sentence that was cut off at the end counts."""
    counts = [count for sentence in split_sentences(text) if (count := len(_WORD.findall(sentence)))]
    return sum(counts) / len(counts) if counts else float("nan")
