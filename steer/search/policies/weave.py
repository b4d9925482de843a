"""Weave, the tree search of MiniHF: best-first expansion, then sampling without replacement by top-down Gumbels.

The target is `p(span) * exp(value / T)`, normalised over the spans that were drawn. Every node has a logit `value / T`
and Gumbel noise that is drawn once. In a round the unexpanded nodes near the beam are expanded in the order of
`logit + gumbel`, logits are backed up to the beam, and the next beam is drawn among the children of the old one.
Restated from the description of `weave.py` in MiniHF, with two changes that options undo: expanded nodes have the
log-mean-exp of their children, not the log-sum-exp, and nodes may be expanded again.
"""

import heapq
from collections.abc import Generator, Iterator, Sequence
from typing import Literal

from steer.search.environment import Request
from steer.search.fields import Status
from steer.search.policies.backup import BACKUPS, log_softmax, truncated_gumbels
from steer.search.policies.planning import (
    Count,
    PolicyConfig,
    Positive,
    draws,
    planned_temperature,
    share,
    total,
    unfinished,
)
from steer.search.problem import Problem, Steps


class WeaveConfig(PolicyConfig):
    """Options of `weave`, named as in MiniHF.

    Attributes:
        budget: nodes in all; None takes the problem's. MiniHF's command line has 576.
        round_budget: nodes for each round, which decides one span; None plans it. MiniHF has 96.
        n_expand: children of a node that is expanded; None takes half of the round's nodes. MiniHF has 32.
        beam_width: nodes that are committed to at each depth.
        max_lookahead: spans behind the beam that may be written in a round.
        temperature: T, in units of the value; None takes half the standard deviation of the values of the first
            children. MiniHF has 0.2, for values that are log-odds.
        backup: `logmeanexp`, or MiniHF's `logsumexp`, by which an expanded node gains up to the logarithm of the
            number of its children.
        widen: whether nodes are expanded again where nothing new within the lookahead is left; MiniHF does not.
        leaves: nodes that are expanded at once, in one batch; MiniHF has 1.
    """

    budget: Count | None = None
    round_budget: Count | None = None
    n_expand: Count | None = None
    beam_width: Count = 1
    max_lookahead: Count = 3
    temperature: Positive | None = None
    backup: Literal["logmeanexp", "logsumexp"] = "logmeanexp"
    widen: bool = True
    leaves: Count = 1

    @property
    def fanout(self) -> float:
        """Children of an expanded node on the average, at least: a round's last node may get fewer than the others."""
        return max(1.0, (self.n_expand or 4) / 2)


def weave(problem: Problem, config: WeaveConfig) -> Steps:
    """Round by round, expand what looks best behind the beam, then draw the next beam among its children.

    A round's nodes are cut down so that one is left for each later span. Where all children of the beam are complete,
    it stays for another round if it may be widened.
    """
    tree, depth = problem.tree, 0
    left = total(problem) if config.budget is None else min(config.budget, total(problem))
    beam, tops, temperature = [problem.root], {problem.root: 0.0}, config.temperature
    while left > 0 and depth < problem.horizon:
        nodes = share(problem, depth, left)
        if config.round_budget is not None:
            nodes = max(1, min(config.round_budget, left - (problem.horizon - depth - 1)))
        spent, temperature = yield from _round(problem, config, beam, depth + config.max_lookahead, nodes, temperature)
        left -= spent
        for node in beam:
            tops |= _perturb(problem, node, tops[node])
        found = unfinished(problem, [child for node in beam for child in problem.distinct(node)])
        if found:
            beam, depth = sorted(found, key=lambda node: -tops[node])[: config.beam_width], depth + 1
            for node in found:
                tree.mark(node, Status.COMMITTED if node in beam else Status.PRUNED)
        elif not config.widen:
            return


def _round(
    problem: Problem, config: WeaveConfig, beam: Sequence[int], limit: int, nodes: int, temperature: float | None
) -> Generator[list[Request], list[int], tuple[int, float | None]]:
    """Expand nodes behind the beam and above depth `limit`, the best first.

    Returns how many nodes were spent, and the temperature, which the first children decide where it is not given.
    """
    tree, spent = problem.tree, 0
    expand = config.n_expand or max(2, (nodes + 1) // 2)

    def urgency(node: int) -> tuple[int, bool, float]:
        written = len(problem.children(node))
        return -written, node in beam, float(tree.logit[node] + tree.gumbel[node])

    while spent < nodes:
        near = [node for node in _subtrees(problem, beam) if tree.depth[node] < limit and not tree.is_complete(node)]
        fresh = [node for node in near if not problem.children(node)]
        chosen = heapq.nlargest(config.leaves, fresh or (near if config.widen else []), key=urgency)
        if not chosen:
            break
        count = nodes - spent if len(near) == 1 and not fresh else expand
        batch: list[Request] = []
        for node in chosen:
            batch += problem.ask(node, min(count, nodes - spent - len(batch)))
        children = yield batch
        temperature = temperature or planned_temperature(tree.value[children])
        for child in children:
            if not tree.has(child, Status.DUPLICATE):
                tree.logit[child] = tree.value[child] / temperature
                tree.gumbel[child] = problem.rng(child, "weave").gumbel()
        spent += len(batch)
        for node in chosen:
            _back_up(problem, node, beam, config.backup)
    return spent, temperature


def _subtrees(problem: Problem, nodes: Sequence[int]) -> Iterator[int]:
    """Nodes and everything distinct that was written behind them."""
    for node in nodes:
        yield node
        yield from _subtrees(problem, problem.distinct(node))


def _back_up(problem: Problem, node: int, beam: Sequence[int], backup: str) -> None:
    """Logits of a node and those above it from those of their children, up to the beam, which keeps its own."""
    while node not in beam:
        children = draws(problem, node)
        if children:
            problem.tree.logit[node] = BACKUPS[backup](problem.tree.logit[list(children)], list(children.values()))
        node = int(problem.tree.parent[node])


def _perturb(problem: Problem, node: int, top: float) -> dict[int, float]:
    """Set `phi` of a node's children, their log-probabilities; returns their scores, the largest of which is `top`."""
    tree, children = problem.tree, draws(problem, node)
    ids = list(children)
    tree.phi[ids] = tree.phi[node] + log_softmax(tree.logit[ids], list(children.values()))
    scores = truncated_gumbels(tree.phi[ids] + tree.gumbel[ids], top)
    return dict(zip(ids, scores.tolist(), strict=True))
