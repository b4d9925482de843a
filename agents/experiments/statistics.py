"""Intervals and tests for paired samples, in numpy.

Values are float64 `[pairs, k]` or `[pairs]`, one row per pair: a pair that was written with several seeds comes in as
the mean over them. So what is resampled or exchanged is a pair, never a seed of it (a cluster bootstrap), and NaN
stands for a pair that has no value.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator

DRAWS = 10_000
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # in JSON null is NaN
EXACT_PAIRS = 14  # up to here all 2^n exchanges of a permutation test are enumerated


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % bootstrap interval.

    Attributes:
        mean, low, high: NaN where no pair has a value.
        pairs: that have one.
    """

    mean: Number
    low: Number
    high: Number
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same pairs.

    Attributes:
        difference: of their means, first minus second.
        p: two-sided.
        test: `McNemar, exact` for yes or no, `sign flips, exact` or `sign flips` for numbers.
        effect: size of the difference: Cohen's h for yes or no, Cohen's d of the paired differences for numbers.
        effect_name: `h` or `d`.
        delta: Cliff's delta within pairs, which no outlier moves; for yes or no it is the difference.
    """

    difference: Estimate
    p: Number
    test: str
    effect: Number
    effect_name: str
    delta: Number = math.nan


def means(values: np.ndarray) -> np.ndarray:
    """Means `[...]` over the first axis of `values [n, ...]`, of what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0.0).sum(0), there.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def bootstrap_weights(pairs: int, *, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """How often each pair is drawn in each resample: float64 `[draws, pairs]`, rows sum to `pairs` (Efron, 1979)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=draws).astype(np.float64)


def estimate(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Mean of `values [pairs]` over the pairs that have one, with its percentile interval.

    Args:
        values: one per pair.
        weights: of `bootstrap_weights`; give the same to all that is to be compared.
    """
    there = ~np.isnan(values)
    if not there.any():
        return Estimate(math.nan, math.nan, math.nan, 0)
    drawn = weights @ there.astype(np.float64)
    means = (weights @ np.where(there, values, 0.0))[drawn > 0] / drawn[drawn > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values[there].mean()), float(low), float(high), int(there.sum()))


def compare(first: np.ndarray, second: np.ndarray, weights: np.ndarray, *, seed: int = 0) -> Comparison:
    """Compare two arms, `[pairs]` each, on the pairs that have a value in both."""
    difference = estimate(first - second, weights)
    there = ~np.isnan(first - second)
    first, second = first[there], second[there]
    if not len(first):
        return Comparison(difference, math.nan, "none", math.nan, "none")
    delta = cliffs_delta(first - second)
    if np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all():
        p = mcnemar(int((first > second).sum()), int((first < second).sum()))
        return Comparison(difference, p, "McNemar, exact", cohens_h(first.mean(), second.mean()), "h", delta)
    p, exact = sign_flips(first - second, seed=seed)
    test = "sign flips, exact" if exact else "sign flips"
    return Comparison(difference, p, test, cohens_d(first - second), "d", delta)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: p of as uneven a split of the pairs in which one of two arms succeeded (1947).

    Args:
        only_first, only_second: pairs in which one succeeded and the other did not.
    """
    total, ways, tail = only_first + only_second, 1, 0
    for k in range(min(only_first, only_second) + 1):
        tail += ways  # of choosing k out of all
        ways = ways * (total - k) // (k + 1)
    return min(1.0, 2 * tail / 2**total)  # a quotient of whole numbers: nothing under- or overflows


def sign_flips(differences: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, bool]:
    """Two-sided permutation test of paired differences: each could have had the other sign (Fisher, 1935).

    Returns:
        p, and whether all exchanges were enumerated. Else so many are drawn, and p is `(1 + as extreme) / (1 + draws)`.
    """
    values = differences[differences != 0]
    # Sums of the same numbers in another order differ in their last bits.
    bound = abs(values.sum()) - 1e-9 * max(1.0, float(np.abs(values).sum()))
    if len(values) <= EXACT_PAIRS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(values)))).reshape(
            2 ** len(values), len(values)
        )
        return float((np.abs(signs @ values) >= bound).mean()), True
    signs = np.random.default_rng(seed).integers(0, 2, (draws, len(values)), dtype=np.int8) * 2 - 1
    return float((1 + (np.abs(signs @ values) >= bound).sum()) / (1 + draws)), False


def cohens_d(differences: np.ndarray) -> float:
    """Mean of paired differences over their standard deviation (d_z); NaN where they do not vary (Cohen, 1988)."""
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return float(differences.mean()) / spread if spread > 0 else math.nan


def cohens_h(first: float, second: float) -> float:
    """Difference of two shares on the scale of equal variance: 0.2 is small, 0.5 medium, 0.8 large (Cohen, 1988)."""
    return 2 * math.asin(math.sqrt(first)) - 2 * math.asin(math.sqrt(second))


def cliffs_delta(differences: np.ndarray) -> float:
    """Share of pairs in which the first is larger less the share in which it is smaller: -1 to 1 (Cliff, 1993)."""
    return float(np.sign(differences).mean()) if len(differences) else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for so many tests (Holm, 1979); NaN stays, and is no test."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, largest = list(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
