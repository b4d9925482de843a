"""Measures: numbers of samples, as plain functions of one signature.

A measure is `measure(records, bench) -> float64 [n]`, one number per record, NaN where there is none. It must not
depend on which records come together: cells are measured one by one. A new measure is a function and a line in
`MEASURES`; a run that was finished without it takes it from the stored samples, and writes nothing again.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from agents.experiments import lexical
from agents.experiments.bench import Bench, Measure
from agents.experiments.cells import Record
from steer.evaluation.evaluate import base_nll, ending
from steer.writing.guided import Written


def rank(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Place of the right terminal among a hundred, by the judge's similarity to the ending; 1 is the nearest."""
    ends = bench.embed([ending_of(record) for record in records])
    ranks = []
    for record, end in zip(records, ends, strict=True):
        scores = bench.embed([pair.terminal for pair in bench.rivals(record.pair)]) @ end
        right = float(bench.embed([record.pair.terminal])[0] @ end)
        ranks.append(float((scores > right + 1e-9).sum() + 1) if end.any() else float(len(scores)))
    return np.array(ranks)


def nearest(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """1 where the right terminal is the nearest to the ending among a hundred."""
    return (rank(records, bench) <= 1).astype(np.float64)


def nearest_five(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """1 where the right terminal is among the five nearest to the ending."""
    return (rank(records, bench) <= 5).astype(np.float64)


def similarity(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Cosine of the ending and the terminal, by the judge."""
    ends = bench.embed([ending_of(record) for record in records])
    return (ends * bench.embed([record.pair.terminal for record in records])).sum(1)


def best_similarity(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Largest cosine of any span and the terminal, by the judge."""
    return np.array([max(scores, default=0.0) for scores in _span_scores(records, bench)])


def overlap(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Share of the terminal's content words that stand in the text: lexical, blind to synonyms."""
    return _kept(records, lexical.content_words)


def names(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Share of the terminal's names, as far as the context does not give them away, that stand in the text."""
    return _kept(records, lexical.names, given=True)


def numbers(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """The same of numbers, from two."""
    return _kept(records, lexical.numbers, given=True)


def reached(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """1 where any span came as near to the terminal as the experiment asks for."""
    return (~np.isnan(spans_to_reach(records, bench))).astype(np.float64)


def spans_to_reach(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Spans until one came as near as that, from 1; NaN where none did."""
    first = []
    for scores in _span_scores(records, bench):
        first.append(next((float(n) for n, s in enumerate(scores, start=1) if s >= bench.reached), np.nan))
    return np.array(first)


def fluency(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Mean NLL of the text under the bare, unsteered base behind the pair's context, nats per token."""
    limit, rows = bench.model.latent_config.max_context, []
    empty = torch.zeros(0)
    for record in records:
        context = tuple(bench.model.to_ids(record.pair.context)[-limit:])
        sample = record.sample
        rows.append(Written(sample.ids, sample.text, sample.spans, empty, empty, sample.ended, context))
    return np.asarray(base_nll(bench.model, rows), dtype=np.float64)


def distinct_1(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Different words over all words of a text."""
    return _distinct(records, 1)


def distinct_2(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Different pairs of neighbouring words over all such pairs."""
    return _distinct(records, 2)


def distinct_3(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Different triples of neighbouring words over all such triples."""
    return _distinct(records, 3)


def repetition(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Share of a text's runs of four words that stand in it more than once."""
    shares = []
    for record in records:
        grams = Counter(_grams(record, 4))
        shares.append(sum(n for n in grams.values() if n > 1) / grams.total() if grams else np.nan)
    return np.array(shares)


def consistency(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Cosine of the text and its context, by the judge (which reads the first 256 tokens)."""
    texts = bench.embed([record.sample.text for record in records])
    return (texts * bench.embed([record.pair.context for record in records])).sum(1)


def speech(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Share of a text's words that are direct speech, in double quotes."""
    return np.array([lexical.speech_share(record.sample.text) for record in records])


def sentence_words(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Mean length of a text's sentences, in words."""
    return np.array([lexical.sentence_words(record.sample.text) for record in records])


def ended(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """1 where the story came to its end."""
    return np.array([float(record.sample.ended) for record in records])


def tokens(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Tokens generated for a text, drafts and discarded candidates included."""
    return np.array([float(record.sample.tokens) for record in records])


def encodes(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Spans that the encoder read for a text."""
    return np.array([float(record.sample.encodes) for record in records])


def seconds(records: Sequence[Record], bench: Bench) -> np.ndarray:
    """Wall time of a text: its share of what was written together."""
    return np.array([record.sample.seconds for record in records])


MEASURES: dict[str, Measure] = {
    "nearest": Measure(nearest, "goal", percent=True, judged=True),
    "nearest_five": Measure(nearest_five, "goal", percent=True, judged=True),
    "rank": Measure(rank, "goal", digits=1, judged=True),
    "similarity": Measure(similarity, "goal", judged=True),
    "best_similarity": Measure(best_similarity, "goal", judged=True),
    "overlap": Measure(overlap, "goal", percent=True),
    "names": Measure(names, "goal", percent=True),
    "numbers": Measure(numbers, "goal", percent=True),
    "reached": Measure(reached, "goal", percent=True, judged=True),
    "spans_to_reach": Measure(spans_to_reach, "goal", digits=1, judged=True),
    "base_nll": Measure(fluency, "text"),
    "distinct_1": Measure(distinct_1, "text"),
    "distinct_2": Measure(distinct_2, "text"),
    "distinct_3": Measure(distinct_3, "text"),
    "repetition": Measure(repetition, "text", percent=True),
    "consistency": Measure(consistency, "text", judged=True),
    "speech": Measure(speech, "text", percent=True),
    "sentence_words": Measure(sentence_words, "text", digits=1),
    "ended": Measure(ended, "text", percent=True),
    "tokens": Measure(tokens, "cost", digits=0),
    "encodes": Measure(encodes, "cost", digits=1),
    "seconds": Measure(seconds, "cost"),
}


def ending_of(record: Record) -> str:
    """The last span that holds any text."""
    return ending(record.sample)  # type: ignore[arg-type]  # it reads `spans`, which both have


def _kept(records: Sequence[Record], pick: Callable[[str], set[str]], *, given: bool = False) -> np.ndarray:
    """Share of what `pick` finds in the terminals that is among the words of the texts; NaN where it finds nothing.

    With `given` what is among the words of the context does not count.
    """
    shares = []
    for record in records:
        wanted = pick(record.pair.terminal) - (set(lexical.words(record.pair.context)) if given else set())
        there = wanted & set(lexical.words(record.sample.text))
        shares.append(len(there) / len(wanted) if wanted else np.nan)
    return np.array(shares)


def _span_scores(records: Sequence[Record], bench: Bench) -> list[list[float]]:
    goals = bench.embed([record.pair.terminal for record in records])
    scores = []
    for record, goal in zip(records, goals, strict=True):
        spans = record.sample.spans
        scores.append([float(s) for s in bench.embed(spans) @ goal] if spans else [])
    return scores


def _grams(record: Record, size: int) -> list[tuple[str, ...]]:
    found = lexical.words(record.sample.text)
    return list(zip(*(found[i:] for i in range(size)), strict=False))


def _distinct(records: Sequence[Record], size: int) -> np.ndarray:
    grams = [_grams(record, size) for record in records]
    return np.array([len(set(g)) / len(g) if g else np.nan for g in grams])
