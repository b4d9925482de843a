"""Policies of choice and arrival control: laws of small functions."""

import itertools
from typing import get_args

import pytest

from agents.characters.selection import CHOICES, Facts, arrival_gain
from agents.scenarios.planner_settings import Choice

FACTS = [
    Facts(similarity, weight, turns, chance)
    for similarity, weight, turns, chance in itertools.product((-1.0, 0.2, 0.9), (0.0, 0.5, 1.0), (1, 4), (0.1, 0.8))
]


@pytest.mark.parametrize("name", CHOICES)
def test_scores_are_shares(name: str) -> None:
    assert all(0 <= CHOICES[name](facts) <= 1 for facts in FACTS)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("balanced", Facts(0.5, 1.0, 2, None)),
        ("balanced", Facts(0.4, 1.0, 1, None)),
        ("similarity", Facts(0.5, 0.1, 9, 0.0)),
        ("reach", Facts(-0.9, 0.1, 9, 0.7)),
        ("priority", Facts(-0.9, 1.0, 9, 0.0)),
        ("deadline", Facts(-0.9, 0.1, 1, 0.0)),
    ],
)
def test_each_goes_by_what_its_name_says(name: str, better: Facts) -> None:
    worse = Facts(0.4, 0.9, 2, 0.5 if better.chance is not None else None)
    assert CHOICES[name](better) > CHOICES[name](worse)


def test_reach_without_a_head_goes_by_similarity() -> None:
    facts = Facts(0.3, 0.5, 2, None)
    assert CHOICES["reach"](facts) == CHOICES["similarity"](facts)


def test_the_gain_is_one_on_time_and_grows_evenly_behind() -> None:
    assert [arrival_gain(chance, target=0.5, hurry=2.0) for chance in (1.0, 0.5, 0.25, 0.0)] == [1, 1, 2, 3]
    assert arrival_gain(0.0, target=0.5, hurry=0.0) == 1


def test_scenarios_know_every_policy() -> None:
    assert list(get_args(Choice)) == list(CHOICES)
