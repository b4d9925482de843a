"""Measures on texts made by hand, with a judge whose vectors can be computed in the head."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.experiments.lexical import names, numbers, words
from agents.experiments.measures import JudgeContext
from agents.experiments.pairs.measures import MEASURES
from agents.experiments.pairs.writing import Sample
from steer.data.pairs import Pair
from steer.evaluation.decoding import nlls
from steer.writing.guided import write_guided
from tests.agents.experiments.kit import PAIRS, Letters, sample

NO_MODEL: Any = None
PLACES = {"east": 0.0, "near east": 0.2, "north": 1.4, "west": 3.0, "far": 2.0}
Written = tuple[Pair, Sample]
WORLD = [Pair("e", "east", "east"), Pair("n", "north", "north"), Pair("w", "west", "west")]


class Compass:
    """A judge for which each text is a direction."""

    def embed(self, texts: Sequence[str]) -> Tensor:
        angles = [PLACES[text] for text in texts]
        return torch.tensor([[np.cos(a), np.sin(a)] for a in angles], dtype=torch.float32)


def record(pair: Pair, *spans: str) -> Written:
    return pair, sample(*spans)


def measure(name: str, rows: Sequence[Written], context: JudgeContext) -> np.ndarray:
    return MEASURES[name].take([sample for _, sample in rows], [pair for pair, _ in rows], context)


def take(name: str, *rows: Written, model: Any = None, reached: float = 0.9) -> list[float]:
    return measure(name, rows, JudgeContext(model, Compass(), WORLD, reached=reached)).tolist()


def test_ranks_are_those_of_the_endings() -> None:
    rows = [record(WORLD[0], "west", "near east", " "), record(WORLD[0], "east", "north"), record(WORLD[0], "far")]
    assert take("rank", *rows) == [1, 2, 3]
    assert take("nearest", *rows) == [1, 0, 0]
    assert take("nearest_five", *rows) == [1, 1, 1]


def test_nothing_written_is_the_last_place() -> None:
    assert take("rank", record(WORLD[0], "", " ")) == [3]
    assert take("similarity", record(WORLD[0], "")) == [0]


def test_similarity_of_the_ending_and_of_the_best_span() -> None:
    row = record(WORLD[0], "near east", "north")
    assert take("similarity", row)[0] == pytest.approx(np.cos(1.4))
    assert take("best_similarity", row)[0] == pytest.approx(np.cos(0.2))


def test_spans_until_the_goal_was_reached() -> None:
    rows = [record(WORLD[0], "north", "near east", "east"), record(WORLD[0], "north")]
    assert take("reached", *rows) == [1, 0]
    assert take("spans_to_reach", *rows) == pytest.approx([2, np.nan], nan_ok=True)
    assert take("spans_to_reach", rows[0], reached=0.99) == [3]


def test_everyone_competes_with_a_hundred() -> None:
    pairs = [Pair(str(i), "a", str(i)) for i in range(250)]
    context = JudgeContext(NO_MODEL, None, pairs)
    for place in (0, 99, 100, 199, 200, 249):
        rivals = context.rivals(pairs[place])
        assert len(rivals) == 100 and pairs[place].terminal in rivals
    assert len(JudgeContext(NO_MODEL, None, pairs[:30]).rivals(pairs[3])) == 30


def test_words_of_the_goal() -> None:
    pair = Pair("x", "a", "The Dog's ball fell into the lake.")
    rows = [record(pair, "A BALL, a lake!"), record(pair, "the into the"), record(Pair("y", "a", "It was."), "It was.")]
    assert take("overlap", *rows) == pytest.approx([2 / 4, 0, np.nan], nan_ok=True)
    assert words("Don't, she said: \u201cGo\u201d!") == ["don't", "she", "said", "go"]


def test_names_and_numbers_by_hand() -> None:
    assert names('Then Tom\'s dog saw Mia. He ran. "Come, Ben," I said.') == {"tom's", "mia", "ben"}
    assert numbers("One day 12 men and three dogs.") == {"12", "three"}
    pair = Pair("x", "Tom sat down.", "Then Tom and Mia saw three boats.")
    rows = [record(pair, "mia ran"), record(pair, "Tom had three."), record(Pair("y", "a", "It was one."), "It.")]
    assert take("names", *rows) == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert take("numbers", *rows) == pytest.approx([0, 1, np.nan], nan_ok=True)


def test_variety_and_repetition_by_hand() -> None:
    rows = [record(WORLD[0], "a b a b a"), record(WORLD[0], "one two three four"), record(WORLD[0], "")]
    assert take("distinct_1", *rows) == pytest.approx([2 / 5, 1, np.nan], nan_ok=True)
    assert take("distinct_2", *rows) == pytest.approx([2 / 4, 1, np.nan], nan_ok=True)
    assert take("distinct_3", *rows) == pytest.approx([2 / 3, 1, np.nan], nan_ok=True)
    assert take("repetition", *rows) == pytest.approx([0, 0, np.nan], nan_ok=True)
    assert take("repetition", record(WORLD[0], "a b c d a b c d")) == [2 / 5]


def test_fluency_is_that_of_the_evaluation(model: Any) -> None:
    pairs = PAIRS[:2]
    written = write_guided(model, [pair.context for pair in pairs], spans=2, seeds=[1, 2])
    rows = [
        (pair, Sample(row.text, row.spans, row.ids, row.ended, 8, 0)) for pair, row in zip(pairs, written, strict=True)
    ]
    found = measure("base_nll", rows, JudgeContext(model, None, PAIRS))
    assert found.tolist() == pytest.approx(
        nlls(model, [row.context for row in written], [row.ids for row in written]).tolist()
    )


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_does_not_depend_on_who_else_is_measured(name: str, model: Any) -> None:
    rows = [record(pair, f"I saw {pair.terminal} ", "And so on. And so on. And") for pair in PAIRS[:3]]
    together = measure(name, rows, JudgeContext(model, Letters(), PAIRS, reached=0.6))
    assert together.shape == (3,) and together.dtype == np.float64
    alone = [measure(name, [row], JudgeContext(model, Letters(), PAIRS, reached=0.6))[0] for row in rows]
    assert together.tolist() == pytest.approx(alone, nan_ok=True)


def test_no_text_is_judged_twice() -> None:
    judge = Letters()
    context = JudgeContext(NO_MODEL, judge, PAIRS)
    rows = [record(PAIRS[0], "A bee.", "A bee.")]
    for name in ("rank", "nearest", "best_similarity"):
        measure(name, rows, context)
    assert len(judge.texts) == len(set(judge.texts))
