"""Pairs of a state and a terminal, and how far apart they are.

A state is a span of S tokens. A terminal is a passage that lies elsewhere: a span, or whole sentences that fit one,
since goals are sentences. Distance is counted in spans until the terminal has been told in full. What was told before
the state, and what belongs to another story, cannot be reached.
"""

from dataclasses import dataclass, fields

import numpy as np

from steer.data.passages import Passages
from steer.errors import CorpusError
from steer.heads.reach import ReachConfig

EARLIER = -1  # a distance: the terminal has been told before the state
OTHER = -2  # a distance: the terminal is of another story
ACROSS = -3  # the terminal lies across a border of the state; such pairs are left out


@dataclass(frozen=True)
class Pairs:
    """Pairs of a state and a terminal, as numbers of passages. n pairs.

    Attributes:
        state, terminal: `[n]` int64.
        distance: `[n]` int64: 0 where the terminal lies inside the state, d >= 1 where it has been told in full d spans
            after it, `EARLIER` or `OTHER`.
    """

    state: np.ndarray
    terminal: np.ndarray
    distance: np.ndarray

    def __len__(self) -> int:
        return len(self.state)

    @classmethod
    def join(cls, parts: "list[Pairs]") -> "Pairs":
        """One row of pairs out of several."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def take(self, rows: np.ndarray) -> "Pairs":
        """Some of the pairs."""
        return Pairs(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def story_pairs(passages: Passages) -> Pairs:
    """All pairs inside stories. A terminal that lies across a border of its state is left out.

    Raises:
        CorpusError: there are none: no story has two spans.
    """
    states, terminals, distances = [], [], []
    borders = np.flatnonzero(np.diff(passages.story)) + 1
    for group in np.split(np.arange(len(passages.story)), borders):
        here = group[passages.span[group]]
        state, terminal = (part.ravel() for part in np.meshgrid(here, group, indexing="ij"))
        begin, end = passages.begin[terminal], passages.end[terminal]
        left, right = passages.begin[state], passages.end[state]
        distance = -((right - end) // passages.span_tokens)  # rounded up
        inside = (begin >= left) & (end <= right)
        distance = np.select([begin >= right, end <= left, inside], [distance, EARLIER, 0], ACROSS)
        kept = (distance != ACROSS) & (state != terminal)
        states.append(state[kept])
        terminals.append(terminal[kept])
        distances.append(distance[kept])
    if not sum(map(len, states)):
        raise CorpusError(
            f"no story has two spans of {passages.span_tokens} tokens, so there is nothing to tell near from far; give "
            "longer stories"
        )
    return Pairs(*(np.concatenate(part) for part in (states, terminals, distances)))


def other_pairs(passages: Passages, count: int, rng: np.random.Generator, *, rivals: bool) -> Pairs:
    """States with terminals of other stories.

    Args:
        passages: where they come from.
        count: pairs drawn; those that cannot be (one story only, no story shares a name) are left out.
        rng: draws.
        rivals: whether the other story shares a name with the state's.
    """
    states = rng.choice(np.flatnonzero(passages.span), count)
    terminals = rng.integers(0, len(passages.story), count)
    if rivals:
        chosen = passages.rivals[passages.story[states], rng.integers(0, passages.rivals.shape[1], count)]
        first, last = (np.searchsorted(passages.story, chosen, side=side) for side in ("left", "right"))
        terminals = first + (rng.random(count) * (last - first)).astype(np.int64)
        kept = (chosen >= 0) & (last > first)
    else:
        kept = passages.story[states] != passages.story[terminals]
    return Pairs(states[kept], terminals[kept], np.full(int(kept.sum()), OTHER))


def bucket_of(distance: np.ndarray, buckets: list[int]) -> np.ndarray:
    """The class `[n]` of each distance: its bucket, or, after the last, `unreachable`."""
    return np.where(distance < 0, len(buckets), np.searchsorted(buckets, distance, side="right") - 1)


class PairSampler:
    """Draws pairs in the mix of a configuration: all buckets alike, and its shares of what cannot be reached.

    Args:
        passages: where they come from.
        config: buckets and shares.

    Raises:
        CorpusError: see `story_pairs`.
    """

    def __init__(self, passages: Passages, config: ReachConfig) -> None:
        self.passages, self.config = passages, config
        self.inside = story_pairs(passages)
        kinds = bucket_of(self.inside.distance, config.buckets)
        self.groups = [np.flatnonzero(kinds == kind) for kind in range(len(config.buckets) + 1)]

    def draw(self, count: int, rng: np.random.Generator) -> Pairs:
        """About `count` pairs in random order; what the stories do not have (a bucket, a shared name) is left out."""
        c = self.config
        *reached, earlier = self.groups
        reached = [group for group in reached if len(group)]
        each = int(count * (1 - c.other_share - c.rival_share - c.earlier_share)) // max(1, len(reached))
        rows = [rng.choice(group, each) for group in reached]
        if len(earlier):
            rows.append(rng.choice(earlier, int(count * c.earlier_share)))
        pairs = Pairs.join(
            [
                self.inside.take(np.concatenate(rows)),
                other_pairs(self.passages, int(count * c.other_share), rng, rivals=False),
                other_pairs(self.passages, int(count * c.rival_share), rng, rivals=True),
            ]
        )
        return pairs.take(rng.permutation(len(pairs)))
