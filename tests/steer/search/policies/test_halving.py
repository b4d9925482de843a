"""The schedule of sequential halving, by hand and against a tournament that is played out."""

import math

import pytest

from steer.errors import SearchError
from steer.search.policies.halving import considered_visits, phases


@pytest.mark.parametrize(
    ("candidates", "simulations", "expected"),
    [
        (0, 3, [0, 1, 2]),
        (1, 3, [0, 1, 2]),
        (2, 5, [0, 0, 1, 1, 2]),
        # 3 stay for one visit (9 // (2 * 3)), then 2 for two at a time (9 // (2 * 2)).
        (3, 9, [0, 0, 0, 1, 1, 2, 2, 3, 3]),
        (4, 8, [0, 0, 0, 0, 1, 1, 2, 2]),
        (4, 16, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (8, 16, [0] * 8 + [1] * 4 + [2, 2, 3, 3]),
        (16, 8, [0] * 8),
        (4, 0, []),
    ],
)
def test_by_hand(candidates: int, simulations: int, expected: list[int]) -> None:
    assert considered_visits(candidates, simulations) == expected


@pytest.mark.parametrize("candidates", [2, 3, 5, 8, 16, 23])
@pytest.mark.parametrize("simulations", [1, 7, 32, 200])
def test_against_a_tournament(candidates: int, simulations: int) -> None:
    """Arms 0, 1, ... in order of merit: rounds of equal share, the better half goes on."""
    visits = [0] * candidates
    arms, played = list(range(candidates)), []
    share = simulations / math.ceil(math.log2(candidates))
    while len(played) < simulations:
        for _ in range(max(1, math.floor(share / len(arms) + 1e-12))):
            for arm in arms:
                played.append(visits[arm])
                visits[arm] += 1
        arms = arms[: max(2, len(arms) // 2)]
    assert considered_visits(candidates, simulations) == played[:simulations]


def test_phases_are_batches_of_equal_visits() -> None:
    assert phases(4, 8) == [(0, 4), (1, 2), (2, 2)]
    assert phases(8, 16) == [(0, 8), (1, 4), (2, 2), (3, 2)]
    for candidates in range(2, 9):
        for simulations in range(candidates, 60):
            expected = [visits for visits, count in phases(candidates, simulations) for _ in range(count)]
            assert expected == considered_visits(candidates, simulations)
            assert phases(candidates, simulations)[0] == (0, candidates)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(SearchError, match="count from 0"):
        considered_visits(-1, 3)
