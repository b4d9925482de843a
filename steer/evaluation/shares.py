"""Statistics of the figures: shares with their intervals, ranks, and rank correlation."""

import numpy as np
from torch import Tensor


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


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
