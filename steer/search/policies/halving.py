"""Sequential halving as a schedule of visit counts.

Karnin et al., 2013, "Almost optimal exploration in multi-armed bandits", in the form of `mctx/_src/seq_halving.py`:
every simulation goes to the best candidate among those that were visited as often as the schedule says. Neighbouring
simulations of equal visit count do not depend on each other, so a phase is one batch.
"""

import math
from itertools import groupby

from steer.errors import SearchError


def considered_visits(candidates: int, simulations: int) -> list[int]:
    """For each simulation, how often the candidates to choose from were visited before it.

    The simulations are spent in about `log2(candidates)` equal parts; after each, half of the candidates stay, at least
    two of them.

    Args:
        candidates: how many there are at first; of none or one, each simulation visits the same.
        simulations: how many there are in all.

    Raises:
        SearchError: a number is negative.
    """
    if candidates < 0 or simulations < 0:
        raise SearchError(f"candidates and simulations count from 0; got {candidates} and {simulations}")
    if candidates <= 1:
        return list(range(simulations))
    rounds = math.ceil(math.log2(candidates))
    sequence: list[int] = []
    considered, visits = candidates, 0
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (rounds * considered))):
            sequence += [visits] * considered
            visits += 1
        considered = max(2, considered // 2)
    return sequence[:simulations]


def phases(candidates: int, simulations: int) -> list[tuple[int, int]]:
    """The schedule as batches: (visits before, how many of the best candidates with that many are visited)."""
    return [(visits, len(list(run))) for visits, run in groupby(considered_visits(candidates, simulations))]
