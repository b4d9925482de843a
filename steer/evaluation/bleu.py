"""Corpus BLEU (Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation")."""

import math
import re
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"\w+|[^\w\s]")


def corpus_bleu(texts: Sequence[str], references: Sequence[str], *, order: int = 4) -> float:
    """BLEU of texts against one reference each, over the whole corpus, without smoothing.

    The geometric mean of the clipped precisions of 1- to `order`-grams, each pooled over all texts, times the brevity
    penalty `exp(1 - r / c)` where the texts have c words in all and the references r > c. Words are runs of letters and
    digits; every other character but white space is a word of its own; case counts.

    Args:
        texts, references: as many of each.
        order: longest n-gram.

    Returns:
        In [0, 1]; 0 where some order has no match at all.

    Raises:
        ValueError: the numbers differ.
    """
    if len(texts) != len(references):
        raise ValueError(f"{len(texts)} texts for {len(references)} references; expected one reference per text")
    hits, totals, length, wanted = [0] * order, [0] * order, 0, 0
    for text, reference in zip(texts, references, strict=True):
        ours, theirs = WORD.findall(text), WORD.findall(reference)
        length, wanted = length + len(ours), wanted + len(theirs)
        for n in range(1, order + 1):
            found, right = _ngrams(ours, n), _ngrams(theirs, n)
            hits[n - 1] += (found & right).total()  # a match counts as often as the reference holds it
            totals[n - 1] += found.total()
    if 0 in hits:
        return 0.0
    precision = sum(math.log(hit / total) for hit, total in zip(hits, totals, strict=True)) / order
    return math.exp(precision + min(0.0, 1 - wanted / length))


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))
