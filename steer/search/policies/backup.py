"""Numbers made of values: backups, weights and rescaled values. Plain functions on 1-D float arrays.

No function gives NaN for finite input; equal values give equal results.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def log_sum_exp(logits: ArrayLike, counts: ArrayLike = 1) -> float:
    """`log(sum(counts * exp(logits)))`, without overflow; minus infinity of nothing."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.size == 0:
        return -math.inf
    top = logits.max()
    return float(top + np.log(np.sum(counts * np.exp(logits - top)))) if np.isfinite(top) else float(top)


def log_mean_exp(logits: ArrayLike, counts: ArrayLike = 1) -> float:
    """`log(sum(counts * exp(logits)) / sum(counts))`.

    Unlike `log_sum_exp` it does not grow by up to log n with the number of draws n: equal logits give that same logit.
    """
    logits = np.asarray(logits, dtype=np.float64)
    return log_sum_exp(logits, counts) - math.log(float(np.sum(np.broadcast_to(counts, logits.shape)) or 1.0))


def log_softmax(logits: ArrayLike, counts: ArrayLike = 1) -> Floats:
    """Logarithms of each candidate's share `counts * exp(logits)` of their sum."""
    logits = np.asarray(logits, dtype=np.float64)
    return logits + np.log(counts) - log_sum_exp(logits, counts)


BACKUPS: dict[str, Callable[..., float]] = {"logmeanexp": log_mean_exp, "logsumexp": log_sum_exp}


def truncated_gumbels(scores: ArrayLike, top: float) -> Floats:
    """Perturbed scores `[n]` of siblings, shifted so that their largest is their parent's `top`.

    Top-down sampling without replacement (Kool et al., 2019, "Stochastic beams and where to find them", appendix B.3,
    in its stable form: with Z the largest score and `v = top - score + log(1 - exp(score - Z))`, each becomes
    `top - max(0, v) - log(1 + exp(-|v|))`).
    """
    scores = np.asarray(scores, dtype=np.float64)
    gap = scores - scores.max(initial=-math.inf)
    with np.errstate(
        divide="ignore"
    ):  # of the largest score itself, log(1 - exp(0)) is minus infinity, as it should be
        v = top - scores + np.log(-np.expm1(gap))
    return top - np.maximum(0.0, v) - np.log1p(np.exp(-np.abs(v)))


def rescale(values: ArrayLike, low: float | None = None, high: float | None = None) -> Floats:
    """Values scaled to [0, 1] by their own smallest and largest, or by given ones; all 0 where these are equal."""
    values = np.asarray(values, dtype=np.float64)
    low = float(values.min(initial=math.inf)) if low is None else low
    high = float(values.max(initial=-math.inf)) if high is None else high
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def mixed_value(raw: float, q: ArrayLike, visits: ArrayLike, priors: ArrayLike) -> float:
    """Estimate of a node's value from its own estimate and those of its visited children.

    `(raw + N * mean) / (1 + N)` with N visits of children and `mean` their values averaged by their priors (Danihelka
    et al., 2022, "Policy improvement by planning with Gumbel", appendix D; `mctx/_src/qtransforms.py`).

    Args:
        raw: the node's own estimate.
        q: `[n]` values of its children, read only where visited.
        visits: `[n]` how often each was visited.
        priors: `[n]` probabilities, not necessarily normalised.
    """
    q, visits = np.asarray(q, dtype=np.float64), np.asarray(visits, dtype=np.float64)
    seen = visits > 0
    if not seen.any():
        return float(raw)
    weights = np.maximum(np.asarray(priors, dtype=np.float64)[seen], np.finfo(np.float64).tiny)
    mean = float(np.sum(weights * q[seen]) / np.sum(weights))
    return (raw + float(visits.sum()) * mean) / (1 + float(visits.sum()))


def completed(raw: float, q: ArrayLike, visits: ArrayLike, priors: ArrayLike) -> Floats:
    """Values `[n]` in which unvisited children have the node's `mixed_value`."""
    return np.where(np.asarray(visits) > 0, np.asarray(q, dtype=np.float64), mixed_value(raw, q, visits, priors))


def sigma(q: ArrayLike, most_visits: float, *, c_visit: float, c_scale: float) -> Floats:
    """Values as logits: `(c_visit + most_visits) * c_scale * rescale(q)`, as in mctx's qtransforms."""
    return (c_visit + most_visits) * c_scale * rescale(q)
