"""Gumbel search with sampled children (Danihelka et al., 2022, "Policy improvement by planning with Gumbel"; mctx).

Gumbel MuZero takes the m actions of the greatest `g + logits` and halves them sequentially by `g + logits + sigma(q)`.
Spans are too many to list, but sampling them is the same thing: let draws of the model arrive at the times of a unit
Poisson process, then the first arrival of span x is exponential with rate p(x), so that `-log(arrival)` is
`Gumbel + log p(x)`, for all spans independently. The first m distinct draws are the Gumbel top m, and the arrival times
give their scores without knowing p (Maddison et al., 2014, "A* sampling").
"""

from collections.abc import Generator, Sequence

import numpy as np

from steer.search.environment import Request
from steer.search.policies.backup import completed, log_softmax, sigma
from steer.search.policies.halving import phases
from steer.search.policies.planning import (
    Count,
    PolicyConfig,
    Real,
    back_up,
    commit,
    draws,
    is_last,
    original,
    share,
    total,
    unfinished,
)
from steer.search.problem import Problem, Steps


class GumbelConfig(PolicyConfig):
    """Options of `gumbel`.

    Attributes:
        candidates: m, draws that are compared for each span, at most. None takes half of the span's nodes, from 2 to
            16 of them; mctx has 16.
        width: draws of each node behind a candidate, at most.
        c_visit, c_scale: values in [0, 1] count as logits of `(c_visit + most visits) * c_scale`. A scale of 1 is the
            paper's for board games; mctx has 0.1, which stays nearer to what the model would write anyway.
    """

    candidates: Count | None = None
    width: Count = 4
    c_visit: Real = 50.0
    c_scale: Real = 1.0


def gumbel(problem: Problem, config: GumbelConfig) -> Steps:
    """Halve the candidates for the next span, decide for the best of those with the most visits, and go on there.

    What was written behind the new node is kept: its children are candidates that cost nothing. One span before the
    horizon values are exact and need no second visit: all remaining nodes are drawn there in one batch.
    """
    tree = problem.tree
    node, left = problem.root, total(problem)
    while left > 0:
        nodes = share(problem, int(tree.depth[node]), left)
        if is_last(problem, node):
            back_up(tree, (yield problem.ask(node, nodes)))
            return
        spent, best = yield from _halve(problem, config, node, nodes)
        left -= spent
        if best is not None:
            commit(problem, node, best)
            node = best


def _halve(
    problem: Problem, config: GumbelConfig, node: int, nodes: int
) -> Generator[list[Request], list[int], tuple[int, int | None]]:
    """Sequential halving with at most so many new nodes; returns how many were spent, and the best candidate.

    The best is None where every child is complete. A single candidate is decided for without looking further.
    """
    tree = problem.tree
    known = unfinished(problem, draws(problem, node))
    wanted = config.candidates or min(16, max(2, (nodes + len(known)) // 2))
    spent = min(nodes, max(0, wanted - len(known)))
    if spent:
        back_up(tree, (yield problem.ask(node, spent)))
    _note_scores(problem, node)
    candidates = sorted(unfinished(problem, draws(problem, node)), key=lambda n: -tree.gumbel[n])[:wanted]
    if len(candidates) < 2:
        return spent, next(iter(candidates), None)
    # All candidates were visited once, which is the first phase of a schedule that counts these visits too.
    visits = dict.fromkeys(candidates, 1)
    for before, count in phases(len(candidates), nodes - spent + len(candidates))[1:]:
        chosen = [n for n in _ranked(problem, config, candidates) if visits[n] == before][:count]
        batch = [request for n in chosen for request in problem.ask(_descend(problem, config, n))]
        back_up(tree, (yield batch))
        spent += len(batch)
        for n in chosen:
            visits[n] += 1
    return spent, max(_ranked(problem, config, candidates), key=lambda n: visits[n])


def _note_scores(problem: Problem, node: int) -> None:
    """Set `gumbel` of a node's children to Gumbel + log p, from the arrival times of its draws in order."""
    children = problem.children(node)
    arrivals = problem.rng(node, "gumbel").exponential(size=len(children)).cumsum()
    for child, arrival in zip(children[::-1], arrivals[::-1], strict=True):  # the first draw of a span is what counts
        problem.tree.gumbel[original(problem.tree, child)] = -np.log(arrival)


def _ranked(problem: Problem, config: GumbelConfig, candidates: Sequence[int]) -> list[int]:
    """Candidates by Gumbel + log p + sigma(q), the best first."""
    tree = problem.tree
    q = sigma(
        [tree.mean(n) for n in candidates],
        int(tree.visits[candidates].max()),
        c_visit=config.c_visit,
        c_scale=config.c_scale,
    )
    order = np.argsort(-(tree.gumbel[candidates] + q), kind="stable")
    return [candidates[i] for i in order]


def _descend(problem: Problem, config: GumbelConfig, node: int) -> int:
    """The node behind a candidate that gets the next child: mctx's interior selection, over `width` draws.

    A draw that was not made yet is an unvisited action: it has its share of the prior, and the mixed value. The choice
    is the argmax of `softmax(log prior + sigma(completed q)) - visits / (1 + all visits)`, complete nodes left out.
    """
    tree = problem.tree
    while counts := draws(problem, node):
        ids = list(counts)
        blank = max(0, config.width - sum(counts.values()))
        priors = np.array([*counts.values(), *[1] * blank], dtype=np.float64)
        visits = np.concatenate([tree.visits[ids], np.zeros(blank)])
        means = np.array([tree.mean(n) for n in ids] + [0.0] * blank)
        q = completed(float(tree.value[node]), means, visits, priors)
        improved = log_softmax(sigma(q, visits.max(), c_visit=config.c_visit, c_scale=config.c_scale), priors)
        wish = np.exp(improved) - visits / (1 + visits.sum())
        wish[: len(ids)][[tree.is_complete(n) for n in ids]] = -np.inf
        best = int(np.argmax(wish))
        if best >= len(ids) or tree.is_complete(ids[best]):
            return node
        node = ids[best]
    return node
