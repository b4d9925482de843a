"""Intervals and tests against oracles: computed by hand, scipy where it is installed, laws that tie them together."""

import math

import numpy as np
import pytest

from agents.experiments.statistics import (
    bootstrap_weights,
    cliffs_delta,
    cohens_d,
    cohens_h,
    compare,
    estimate,
    holm,
    mcnemar,
    sign_flips,
)
from steer.evaluation.statistics import share_with_interval


def test_the_interval_is_the_bootstraps() -> None:
    hits = np.array([1.0] * 30 + [0.0] * 70)
    found = estimate(hits, bootstrap_weights(100))
    share, low, high = share_with_interval(hits)
    assert found.mean == share and found.pairs == 100
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    weights = bootstrap_weights(60, draws=1000)
    found = [estimate(rng.normal(3, 1, 60), weights) for _ in range(300)]
    inside = np.mean([f.low <= 3 <= f.high for f in found])
    assert 0.90 <= inside <= 0.98


def test_pairs_without_a_value_do_not_count() -> None:
    values = np.array([1.0, np.nan, 3.0])
    found = estimate(values, bootstrap_weights(3))
    assert (found.mean, found.pairs) == (2.0, 2)
    assert found.low == 1 and found.high == 3
    nothing = estimate(np.array([np.nan, np.nan]), bootstrap_weights(2))
    assert math.isnan(nothing.mean) and nothing.pairs == 0


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (5, 0, 2 / 32), (1, 7, 2 * 9 / 256), (2000, 2000, 1.0), (0, 3000, 0.0)],
)
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, abs=1e-12)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_is_the_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    for first in range(12):
        for second in range(12):
            if first + second:
                assert mcnemar(first, second) == pytest.approx(stats.binomtest(first, first + second).pvalue)


def test_sign_flips_of_yes_and_no_are_mcnemar() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        differences = rng.integers(-1, 2, 12).astype(float)
        p, exact = sign_flips(differences)
        assert exact
        assert p == pytest.approx(mcnemar(int((differences > 0).sum()), int((differences < 0).sum())))


def test_sign_flips_by_hand_and_drawn() -> None:
    assert sign_flips(np.array([1.0, 2.0, 3.0])) == (2 / 8, True)
    assert sign_flips(np.zeros(4)) == (1.0, True)
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(2).normal(0.3, 1, 40)
    p, exact = sign_flips(differences)
    assert not exact
    oracle = stats.permutation_test(
        (differences,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=20_000, rng=0
    )
    assert p == pytest.approx(oracle.pvalue, abs=0.02)


def test_cliffs_delta_counts_pairs() -> None:
    assert cliffs_delta(np.array([3.0, 0.1, -200.0, 0.0])) == 0.25
    assert (cliffs_delta(np.ones(3)), cliffs_delta(-np.ones(3)), cliffs_delta(np.zeros(3))) == (1, -1, 0)
    assert math.isnan(cliffs_delta(np.zeros(0)))
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 2, (2, 50)).astype(float)
    found = compare(first, second, bootstrap_weights(50))
    assert found.delta == pytest.approx(found.difference.mean)
    # Monotone changes of both arms leave it as it is.
    first, second = rng.normal(size=(2, 50))
    assert cliffs_delta(np.exp(first) - np.exp(second)) == cliffs_delta(first - second)
    stats = pytest.importorskip("scipy.stats")
    ahead = int((first > second).sum())
    assert cliffs_delta(first - second) == pytest.approx(2 * stats.binomtest(ahead, 50).statistic - 1)


def test_effects_by_hand() -> None:
    assert cohens_d(np.array([1.0, 2.0, 3.0])) == 2.0
    assert math.isnan(cohens_d(np.ones(3)))
    assert cohens_h(0.5, 0.5) == 0
    assert cohens_h(1.0, 0.0) == pytest.approx(math.pi)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.5, math.nan, 0.6])
    assert adjusted[0] == 1.0 and math.isnan(adjusted[1]) and adjusted[2] == 1.0
    assert holm([]) == []


def test_comparisons_choose_their_test() -> None:
    weights = bootstrap_weights(6)
    yes, no = np.array([1.0, 1, 1, 0, 1, 1]), np.array([0.0, 0, 1, 0, 0, 0])
    shares = compare(yes, no, weights)
    assert (shares.test, shares.effect_name, shares.p) == ("McNemar, exact", "h", 2 / 16)
    assert shares.difference.mean == pytest.approx(4 / 6)
    numbers = compare(yes + 0.5, no, weights)
    assert (numbers.test, numbers.effect_name) == ("sign flips, exact", "d")
    nothing = compare(np.full(6, np.nan), no, weights)
    assert math.isnan(nothing.p) and nothing.difference.pairs == 0


def test_an_arm_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(3).normal(size=30)
    same = compare(values, values, bootstrap_weights(30))
    assert (same.difference.mean, same.difference.low, same.difference.high, same.p) == (0, 0, 0, 1)
