"""Backups and weights as laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.search.policies.backup import (
    completed,
    log_mean_exp,
    log_softmax,
    log_sum_exp,
    mixed_value,
    rescale,
    sigma,
    truncated_gumbels,
)

values = st.lists(st.floats(-50, 50), min_size=1, max_size=8)


@given(values)
def test_logarithms_of_sums(logits: list[float]) -> None:
    assert log_sum_exp(logits) == pytest.approx(math.log(sum(map(math.exp, logits))))
    assert log_mean_exp(logits) == pytest.approx(log_sum_exp(logits) - math.log(len(logits)))
    assert min(logits) - 1e-9 <= log_mean_exp(logits) <= max(logits) + 1e-9
    assert np.exp(log_softmax(logits)).sum() == pytest.approx(1)


@given(values, st.integers(1, 4))
def test_a_count_stands_for_copies(logits: list[float], count: int) -> None:
    assert log_sum_exp(logits, [count] * len(logits)) == pytest.approx(log_sum_exp(logits * count))
    assert log_mean_exp(logits, [count] * len(logits)) == pytest.approx(log_mean_exp(logits))


def test_equal_logits_gain_nothing_from_being_many_but_by_the_sum() -> None:
    for n in (1, 4, 32):
        assert log_mean_exp([0.7] * n) == pytest.approx(0.7)
        assert log_sum_exp([0.7] * n) == pytest.approx(0.7 + math.log(n))


def test_far_logits_do_not_overflow_and_nothing_is_minus_infinity() -> None:
    assert log_sum_exp([1e6, 1e6]) == pytest.approx(1e6 + math.log(2))
    assert log_sum_exp([]) == log_mean_exp([]) == -math.inf


@given(values, st.floats(-20, 20))
def test_truncated_gumbels_keep_the_order_and_have_the_given_top(scores: list[float], top: float) -> None:
    moved = truncated_gumbels(scores, top)
    assert np.isfinite(moved).all()
    assert moved.max() == pytest.approx(top)
    assert (np.diff(moved[np.argsort(scores)]) >= -1e-9).all()


def test_truncated_gumbels_by_the_formula_of_the_paper() -> None:
    scores, top = np.array([0.3, -1.2, 2.0]), 0.5
    direct = -np.log(np.exp(-top) - np.exp(-scores.max()) + np.exp(-scores))  # Kool et al., equation 23
    assert truncated_gumbels(scores, top) == pytest.approx(direct)


def test_rescaled_values() -> None:
    assert rescale([2.0, 4.0, 3.0]).tolist() == [0, 1, 0.5]
    assert rescale([2.0, 4.0], 0.0, 8.0).tolist() == [0.25, 0.5]
    assert rescale([3.0, 3.0]).tolist() == [0, 0]
    assert rescale([]).tolist() == []


def test_the_mixed_value_by_hand() -> None:
    # Visited: values 1 and 4 with priors .2 and .4, so their mean is 3; three visits against one of the node's own.
    q, visits, priors = [1.0, 4.0, 99.0], [1, 2, 0], [0.2, 0.4, 0.4]
    assert mixed_value(5.0, q, visits, priors) == pytest.approx((5 + 3 * 3) / 4)
    assert completed(5.0, q, visits, priors).tolist() == pytest.approx([1, 4, 3.5])
    assert mixed_value(5.0, q, [0, 0, 0], priors) == 5.0
    assert mixed_value(5.0, q, [1, 0, 0], [0.0, 0.5, 0.5]) == pytest.approx(3.0), (
        "a visited one of prior 0 still counts"
    )


def test_sigma_scales_with_visits() -> None:
    assert sigma([1.0, 3.0, 2.0], 10, c_visit=50, c_scale=0.1) == pytest.approx([0, 6, 3])
    assert sigma([1.0, 1.0], 10, c_visit=50, c_scale=0.1).tolist() == [0, 0]
