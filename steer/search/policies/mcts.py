"""Monte Carlo tree search with sampled children: PUCT, several leaves at once, progressive widening.

PUCT and the min-max scaling of values: Schrittwieser et al., 2020, "MuZero", appendix B. Priors of sampled children:
Hubert et al., 2021. Visits under way count in the exploration term only: Liu et al., 2020, "Watch the unobserved"
(WU-UCT). Widening: Couetoux et al., 2011, "Continuous upper confidence trees".
"""

import math
from collections.abc import Generator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from steer.search.environment import Request
from steer.search.policies.backup import rescale
from steer.search.policies.planning import (
    Count,
    PolicyConfig,
    Real,
    back_up,
    commit,
    draws,
    is_last,
    share,
    total,
    unfinished,
)
from steer.search.problem import Problem, Steps


class MctsConfig(PolicyConfig):
    """Options of `mcts`.

    Attributes:
        expand: children that a chosen leaf gets at once.
        leaves: leaves chosen for one batch, at most.
        c_puct: weight of exploration against values, which are scaled to [0, 1].
        widen, alpha: a node with n visits may have `ceil(widen * n ** alpha)` children, and at least `expand`.
        commit: to the child with the most `visits`, among equals that of the greatest mean value; or to the one of
            the greatest mean `value`.
    """

    expand: Count = 8
    leaves: Count = 4
    c_puct: Real = 1.25
    widen: Real = 1.0
    alpha: float = Field(default=0.5, ge=0, le=1)
    commit: Literal["visits", "value"] = "visits"

    @property
    def fanout(self) -> float:
        """Children of an expanded node on the average, at least: a span's last leaf may get fewer than the others."""
        return max(1.0, self.expand / 2)


def mcts(problem: Problem, config: MctsConfig) -> Steps:
    """Search behind the current node, decide for one of its children, and go on there with what is known already.

    Every new node is backed up as one visit with its value. One span before the horizon nothing is left to look ahead
    for: all remaining nodes are written there in one batch.
    """
    node, left = problem.root, total(problem)
    while left > 0:
        nodes = share(problem, int(problem.tree.depth[node]), left)
        left -= nodes
        if is_last(problem, node):
            back_up(problem.tree, (yield problem.ask(node, nodes)))
        else:
            yield from _simulate(problem, config, node, nodes)
        if candidates := unfinished(problem, problem.distinct(node)):
            best = _decide(problem, config, candidates)
            commit(problem, node, best)
            node = best


def _decide(problem: Problem, config: MctsConfig, candidates: Sequence[int]) -> int:
    tree = problem.tree
    if config.commit == "value":
        return max(candidates, key=tree.mean)
    return max(candidates, key=lambda child: (int(tree.visits[child]), tree.mean(child)))


def _simulate(problem: Problem, config: MctsConfig, root: int, nodes: int) -> Generator[list[Request], list[int], None]:
    """Write exactly so many nodes behind a node, in batches of at most `leaves * expand`."""
    tree = problem.tree
    while nodes > 0:
        bounds = _bounds(problem, root)
        batch: list[Request] = []
        pending: dict[int, int] = {}
        while len(pending) < config.leaves and len(batch) < nodes:
            leaf = _select(problem, config, root, bounds, pending)
            if leaf is None:
                break
            requests = problem.ask(leaf, min(config.expand, nodes - len(batch)))
            tree.add_inflight(leaf, len(requests))
            pending[leaf] = pending.get(leaf, 0) + len(requests)
            batch += requests
        try:
            children = yield batch
        finally:
            for leaf, count in pending.items():
                tree.add_inflight(leaf, -count)
        back_up(tree, children)
        nodes -= len(batch)


def _select(
    problem: Problem, config: MctsConfig, node: int, bounds: tuple[float, float], pending: dict[int, int]
) -> int | None:
    """The next node to expand behind a node; None if that depends on answers that are still to come."""
    tree = problem.tree
    while True:
        asked = len(problem.children(node)) + pending.get(node, 0)
        visits = int(tree.visits[node] + tree.inflight[node])
        counts = draws(problem, node)
        open_ = unfinished(problem, counts)
        if asked < max(config.expand, math.ceil(config.widen * visits**config.alpha)):
            return node
        if node in pending:  # to choose among its children now would favour those that are there already
            return None
        if not open_:  # all its children are complete: it can only be widened
            return node
        total_draws = sum(counts.values())
        tries = tree.visits[open_] + tree.inflight[open_]
        priors = np.array([counts[child] / total_draws for child in open_])
        q = rescale([tree.mean(child) for child in open_], *bounds)
        node = open_[int(np.argmax(q + config.c_puct * priors * math.sqrt(visits) / (1 + tries)))]


def _bounds(problem: Problem, root: int) -> tuple[float, float]:
    """Smallest and largest mean value behind a node."""
    found = list(problem.distinct(root))
    for node in found:
        found += problem.distinct(node)
    means = [problem.tree.mean(node) for node in found]
    return min(means, default=0.0), max(means, default=0.0)
