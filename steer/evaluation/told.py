"""How well the signs of a told terminal tell what is told, on stories that nothing was fitted on.

The signs are the reach head's probability that the terminal lies inside a span, and the cosine of the two latents.
Their thresholds are calibrated in training, see `steer.training.heads.arrival`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from steer.data.passage_pairs import Pairs, PairSampler, other_pairs
from steer.data.passages import Passages
from steer.heads.reach import ReachHead


@dataclass(frozen=True)
class Signs:
    """The signs of n pairs of a span and a terminal: cosines `[n]` and probabilities `[n]`."""

    cosine: np.ndarray
    told: np.ndarray

    def pass_share(self, cosine: float, told: float) -> float:
        """Share of the pairs above both thresholds."""
        return float(((self.cosine >= cosine) & (self.told >= told)).mean()) if len(self.told) else 0.0


def signs_of(head: ReachHead, passages: Passages, pairs: Pairs) -> Signs:
    """The signs of pairs of passages."""
    states, terminals = passages.latents[pairs.state], passages.latents[pairs.terminal]
    cosine = torch.nn.functional.cosine_similarity(states, terminals)
    return Signs(cosine.cpu().numpy(), head.told(states, terminals).cpu().numpy())


def draw_signs(head: ReachHead, passages: Passages, count: int, seed: int) -> dict[str, Signs]:
    """The signs of terminals that spans tell, of other stories' (`other`), and of those that share a name (`rival`)."""
    rng = np.random.default_rng((seed, 5))
    inside = PairSampler(passages, head.config).inside
    told = inside.take(np.flatnonzero(inside.distance == 0))
    pairs = {"told": told.take(rng.permutation(len(told))[:count])}
    for name in ("other", "rival"):
        pairs[name] = other_pairs(passages, count, rng, rivals=name == "rival")
    return {name: signs_of(head, passages, drawn) for name, drawn in pairs.items()}


def told_figures(head: ReachHead, passages: Passages, *, count: int = 20_000, seed: int = 0) -> dict[str, Any] | None:
    """How well the thresholds of a head's configuration tell what is told, on stories that nothing was fitted on.

    Returns:
        `recall`: share of the terminals that a span tells which pass; `alarms_other` and `alarms_rival`: share of those
        of other stories, and of stories that share a name, which pass; `recall_cosine`: the recall of a threshold on
        the cosine alone that lets as many pass of the worse kind; `pulled_similarity` of the configuration; `pairs` of
        each kind. None without thresholds.
    """
    cosine, told = head.config.told_similarity, head.config.told_chance
    if cosine is None or told is None:
        return None
    found = draw_signs(head, passages, count, seed)
    alarms = {name: found[name].pass_share(cosine, told) for name in ("other", "rival")}
    worst = max(alarms, key=lambda name: alarms[name])
    alone = np.quantile(found[worst].cosine, 1 - alarms[worst]) if len(found[worst].cosine) else 1.0
    return {
        "recall": found["told"].pass_share(cosine, told),
        **{f"alarms_{name}": share for name, share in alarms.items()},
        "recall_cosine": found["told"].pass_share(float(alone), 0.0),
        "pulled_similarity": head.config.pulled_similarity,
        "pairs": {name: len(signs.told) for name, signs in found.items()},
    }
