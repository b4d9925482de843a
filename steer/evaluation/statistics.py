"""Statistics of the figures: shares with their intervals, ranks, areas under curves, and calibration."""

from typing import Any

import numpy as np
from torch import Tensor

BINS = 10


def share_with_interval(hits: np.ndarray, *, seed: int = 0, draws: int = 10_000) -> tuple[float, float, float]:
    """A share and its 95 % bootstrap interval."""
    rng = np.random.default_rng(seed)
    means = hits[rng.integers(0, len(hits), (draws, len(hits)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(hits.mean()), float(low), float(high)


def nearest_own(scores: Tensor) -> np.ndarray:
    """Whether each row's own column scores highest: bool `[n]` of similarities `[n, n]`. A tie is a miss."""
    others = scores.clone()
    others.fill_diagonal_(-float("inf"))
    return (scores.diagonal() > others.max(1).values).cpu().numpy()


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of two rows `[n]`, equal values sharing their mean rank; 0 where one is constant."""
    a, b = (_ranks(np.asarray(v, np.float64)) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    """The chance that a score of the first kind is above one of the second; ties count half (Mann-Whitney)."""
    ranks = _ranks(np.concatenate([higher, lower]))
    return float((ranks[: len(higher)].mean() - (len(higher) + 1) / 2) / len(lower))


def calibration(chances: np.ndarray, came: np.ndarray) -> dict[str, Any]:
    """Expected calibration error over ten bins of equal width (Guo et al. 2017), and the bins.

    Args:
        chances: `[n]` predicted probabilities.
        came: `[n]` bool, what happened.

    Returns:
        `ece`, and of each bin `predicted` (mean), `came` (share; both None where it is empty) and `pairs`.
    """
    bins = np.minimum((chances * BINS).astype(int), BINS - 1)
    pairs = np.bincount(bins, minlength=BINS)
    predicted, share = (np.bincount(bins, weights=w, minlength=BINS) / np.maximum(pairs, 1) for w in (chances, came))
    return {
        "ece": float((np.abs(predicted - share) * pairs).sum() / len(chances)),
        "predicted": [round(float(v), 3) if n else None for v, n in zip(predicted, pairs, strict=True)],
        "came": [round(float(v), 3) if n else None for v, n in zip(share, pairs, strict=True)],
        "pairs": pairs.tolist(),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
