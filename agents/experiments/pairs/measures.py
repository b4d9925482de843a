"""Measures of texts that were written for pairs, as plain functions of one signature.

A measure is `measure(samples, pairs, context) -> float64 [n]`: one number per sample, NaN where there is none. `pairs`
are what the samples were written for, in the same order; `context` has the model and the judge. A number must not
depend on which samples come together: cells are measured one by one. A new measure is a function and a line in
`MEASURES`; a run that was finished without it takes it from the stored samples, and writes nothing again.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from agents.experiments import lexical
from agents.experiments.measures import JudgeContext, Measure
from agents.experiments.pairs.writing import Sample
from steer.data.pairs import Pair
from steer.evaluation.decoding import nlls
from steer.evaluation.endings import ending


def rank(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Place of the right terminal among a hundred, by the judge's similarity to the ending; 1 is the nearest."""
    ends, ranks = context.embed([ending(sample.spans) for sample in samples]), []
    for pair, end in zip(pairs, ends, strict=True):
        scores = context.embed(context.rivals(pair)) @ end
        right = float(context.embed([pair.terminal])[0] @ end)
        ranks.append(float((scores > right + 1e-9).sum() + 1) if end.any() else float(len(scores)))
    return np.array(ranks)


def nearest(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """1 where the right terminal is the nearest to the ending among a hundred."""
    return (rank(samples, pairs, context) <= 1).astype(np.float64)


def nearest_five(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """1 where the right terminal is among the five nearest to the ending."""
    return (rank(samples, pairs, context) <= 5).astype(np.float64)


def similarity(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Cosine of the ending and the terminal, by the judge."""
    ends = context.embed([ending(sample.spans) for sample in samples])
    return (ends * context.embed([pair.terminal for pair in pairs])).sum(1)


def best_similarity(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Largest cosine of any span and the terminal, by the judge."""
    return np.array([max(scores, default=0.0) for scores in _span_scores(samples, pairs, context)])


def overlap(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Share of the terminal's content words that stand in the text: lexical, blind to synonyms."""
    return _kept(samples, pairs, lexical.content_words)


def names(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Share of the terminal's names, as far as the context does not give them away, that stand in the text."""
    return _kept(samples, pairs, lexical.names, given=True)


def numbers(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """The same of numbers, from two."""
    return _kept(samples, pairs, lexical.numbers, given=True)


def reached(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """1 where any span came as near to the terminal as the experiment asks for."""
    return (~np.isnan(spans_to_reach(samples, pairs, context))).astype(np.float64)


def spans_to_reach(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Spans until one came as near as that, from 1; NaN where none did."""
    first = []
    for scores in _span_scores(samples, pairs, context):
        first.append(next((float(n) for n, s in enumerate(scores, start=1) if s >= context.reached), np.nan))
    return np.array(first)


def fluency(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Mean NLL of the text under the bare, unsteered base behind the pair's context, nats per token."""
    limit, to_ids = context.model.latent_config.max_context, context.model.to_ids
    before = [to_ids(pair.context)[-limit:] for pair in pairs]
    return nlls(context.model, before, [sample.ids for sample in samples])


def consistency(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Cosine of the text and its context, by the judge (which reads the first 256 tokens)."""
    texts = context.embed([sample.text for sample in samples])
    return (texts * context.embed([pair.context for pair in pairs])).sum(1)


def _each(of: Callable[[Sample], float], about: str, group: Literal["text", "cost"], **shown: Any) -> Measure:
    """A measure that looks at each sample alone, described by a line for the glossary."""

    def take(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
        return np.array([float(of(sample)) for sample in samples])

    take.__doc__ = about
    return Measure(take, group, **shown)


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
    "distinct_1": _each(lambda s: lexical.distinct(s.text, 1), "Different words over all words of a text.", "text"),
    "distinct_2": _each(
        lambda s: lexical.distinct(s.text, 2), "Different pairs of neighbouring words over all such pairs.", "text"
    ),
    "distinct_3": _each(
        lambda s: lexical.distinct(s.text, 3), "Different triples of neighbouring words over all such triples.", "text"
    ),
    "repetition": _each(
        lambda s: lexical.repetition(s.text),
        "Share of a text's runs of four words that stand in it more than once.",
        "text",
        percent=True,
    ),
    "consistency": Measure(consistency, "text", judged=True),
    "speech": _each(
        lambda s: lexical.speech_share(s.text),
        "Share of a text's words that are direct speech, in double quotes.",
        "text",
        percent=True,
    ),
    "sentence_words": _each(
        lambda s: lexical.sentence_words(s.text), "Mean length of a text's sentences, in words.", "text", digits=1
    ),
    "ended": _each(lambda s: s.ended, "1 where the story came to its end.", "text", percent=True),
    "tokens": _each(
        lambda s: s.tokens, "Tokens generated for a text, drafts and discarded candidates included.", "cost", digits=0
    ),
    "encodes": _each(lambda s: s.encodes, "Spans that the encoder read for a text.", "cost", digits=1),
    "seconds": _each(lambda s: s.seconds, "Wall time of a text: its share of what was written together.", "cost"),
}


def _kept(
    samples: Sequence[Sample], pairs: Sequence[Pair], pick: Callable[[str], set[str]], *, given: bool = False
) -> np.ndarray:
    """Share of what `pick` finds in the terminals that is among the words of the texts; NaN where it finds nothing.

    With `given` what is among the words of the context does not count.
    """
    shares = []
    for sample, pair in zip(samples, pairs, strict=True):
        wanted = pick(pair.terminal) - (set(lexical.words(pair.context)) if given else set())
        there = wanted & set(lexical.words(sample.text))
        shares.append(len(there) / len(wanted) if wanted else np.nan)
    return np.array(shares)


def _span_scores(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> list[list[float]]:
    """Cosines of each span of a text and its terminal."""
    goals = context.embed([pair.terminal for pair in pairs])
    return [
        [float(score) for score in context.embed(sample.spans) @ goal] if sample.spans else []
        for sample, goal in zip(samples, goals, strict=True)
    ]
