"""Gumbel search: scores of draws, halving, interior selection."""

import math
from typing import Any

import numpy as np
import pytest

from steer.search.fields import Status
from steer.search.policies.gumbel import GumbelConfig, _descend
from steer.search.problem import Problem
from steer.search.tree import Tree
from tests.steer.search.policies.worlds import SPAN, Scripted, Walk, at, best_value, search


def test_scores_of_draws_are_gumbels_shifted_by_log_probabilities() -> None:
    """Spans with known probabilities, drawn often: for each, the scores over many roots are Gumbel(log p)."""
    p, n = np.array([0.6, 0.3, 0.1]), 200
    scores = np.full((n, 3), -np.inf)
    for seed in range(n):
        draws = np.random.default_rng([7, seed]).choice(3, size=40, p=p)
        world = Scripted(lambda path, draws=draws: 0.0, token=lambda path, draws=draws: int(draws[path[-1]]))
        tree, _ = search(world, "gumbel", nodes=80, horizon=2, seeds=[seed], candidates=40)
        for node in tree.children(0):
            if not tree.has(node, Status.DUPLICATE):
                scores[seed, tree.tokens[node, 0]] = tree.gumbel[node]
    assert np.isfinite(scores[:, :2]).all()
    deviation = math.pi / math.sqrt(6)
    for k in (0, 1):
        assert scores[:, k].mean() == pytest.approx(math.log(p[k]) + 0.5772, abs=4 * deviation / math.sqrt(n))
        assert scores[:, k].std() == pytest.approx(deviation, rel=0.15)
    first = np.bincount(scores.argmax(1), minlength=3) / n  # the Gumbel-max trick
    assert first == pytest.approx(p, abs=0.12)


def test_scores_stay_when_more_is_drawn() -> None:
    few, _ = search(Walk(1.0), "gumbel", nodes=8, horizon=2, candidates=4)
    many, _ = search(Walk(1.0), "gumbel", nodes=40, horizon=2, candidates=20)
    assert [few.gumbel[at(few, i)] for i in range(4)] == [many.gumbel[at(many, i)] for i in range(4)]
    falling = [many.gumbel[at(many, i)] for i in range(20)]
    assert falling == sorted(falling, reverse=True), "what is drawn first has the greatest Gumbel"


def test_halving_by_hand() -> None:
    """4 candidates and 8 nodes: all are visited once, the better two twice more; phases are batches."""
    world = Scripted(lambda path: float(path[0]))
    tree, _ = search(world, "gumbel", nodes=24, horizon=3, candidates=4, c_scale=10.0)
    assert [len(batch) for batch in world.batches[:3]] == [4, 2, 2]
    for batch in world.batches[1:3]:
        assert {int(tree.path(request.parent)[0]) for request in batch} == {at(tree, 2), at(tree, 3)}
    assert [int(tree.visits[at(tree, i)]) for i in range(3)] == [1, 1, 3]
    assert tree.has(at(tree, 3), Status.COMMITTED)
    assert best_value(tree, 0) == 3


def test_what_is_known_of_the_new_root_costs_nothing() -> None:
    # The second span's candidates are the children of (3,) that the first span's search has written, and new ones.
    world = Scripted(lambda path: float(path[0]) + path[-1] / 10)
    tree, _ = search(world, "gumbel", nodes=24, horizon=3, candidates=4, c_scale=10.0, width=4)
    second = at(tree, 3)
    known = sum(r.parent == second for batch in world.batches[1:3] for r in batch)
    assert known >= 1
    assert [r.parent for r in world.batches[3]] == [second] * (4 - known)


def test_one_span_before_the_horizon_everything_is_drawn_at_once() -> None:
    world = Scripted(lambda path: float(path[-1]))
    tree, _ = search(world, "gumbel", nodes=30, horizon=1)
    assert [len(batch) for batch in world.batches] == [30] and best_value(tree, 0) == 29


def test_a_single_candidate_is_not_searched() -> None:
    world = Scripted(lambda path: 0.0, token=lambda path: 5)
    _, [outcome] = search(world, "gumbel", nodes=30, horizon=3)
    assert outcome.spent.nodes == 30
    assert {request.index for request in world.batches[0]} == set(range(5))
    assert [len({r.parent for r in batch}) for batch in world.batches] == [1, 1, 1], "straight to the next span"


def node_with_children(**options: Any) -> tuple[Problem, int, GumbelConfig]:
    """A candidate of value 0.5 behind a root of horizon 3."""
    tree = Tree(SPAN, 0)
    problem = Problem(tree, tree.add_root([1], seed=0, horizon=3), nodes=100)
    candidate = tree.add(0, 0, [0] * SPAN, value=0.5)
    problem.answer([candidate])
    tree.back_up(candidate, 0.5)
    return problem, candidate, GumbelConfig(**options)


def grow(problem: Problem, parent: int, value: float, *, token: int | None = None, ended: bool = False) -> int:
    tree = problem.tree
    index = len(problem.children(parent))
    node = tree.add(parent, index, [index if token is None else token] * SPAN, value=value, ended=ended)
    problem.answer([node])
    tree.back_up(node if tree.duplicate_of[node] < 0 else int(tree.duplicate_of[node]), value)
    return node


def test_interior_selection_by_hand() -> None:
    problem, node, config = node_with_children(width=3, c_visit=1.0, c_scale=1.0)
    assert _descend(problem, config, node) == node, "nothing was drawn yet"
    low = grow(problem, node, 0.1)
    # q = [.1, mixed, mixed] with mixed = (.5 + .1) / 2 = .3: rescaled 0, 1, 1; times 2. The visited child has the
    # smallest share of the improved policy and a visit already: draw another.
    assert _descend(problem, config, node) == node
    high = grow(problem, node, 0.9)
    # mixed = (.5 + 2 * .5) / 3 = .5: q = [.1, .9, .5], as logits 0, 2, 1. The policy is .090, .665, .245, visits make
    # up a third each of the first two: .665 - .333 beats .245 - 0.
    improved = np.exp([0, 2, 1]) / np.exp([0, 2, 1]).sum()
    assert np.argmax(improved - np.array([1, 1, 0]) / 3) == 1
    assert _descend(problem, config, node) == high
    grow(problem, high, 0.9)
    # Two visits of `high`: logits scale by 3; mixed = (.5 + 3 * .5) / 4 = .5: 0, 3, 1.5: .79 - .5 against .18: still.
    assert _descend(problem, config, node) == high
    assert problem.tree.visits[[low, high]].tolist() == [1, 2]


def test_interior_selection_leaves_out_complete_nodes_and_widens_where_nothing_else_is_left() -> None:
    problem, node, config = node_with_children(width=2)
    grow(problem, node, 0.9, ended=True)
    other = grow(problem, node, 0.1)
    assert _descend(problem, config, node) == other
    problem, node, config = node_with_children(width=2)
    for _ in range(2):
        grow(problem, node, 0.9, ended=True)
    assert _descend(problem, config, node) == node


def test_duplicates_take_draws_and_give_their_original_a_greater_prior() -> None:
    problem, node, config = node_with_children(width=4, c_scale=0.0)
    first = grow(problem, node, 0.5, token=9)
    for _ in range(2):
        grow(problem, node, 0.5, token=9)
    # Priors 3/4 and 1/4 for the draw to come, values do not count. Visits 3 and 0: 3/4 - 3/4 against 1/4.
    assert _descend(problem, config, node) == node
    grow(problem, node, 0.5)
    # 3/4 - 3/5 against 1/4 - 1/5.
    assert _descend(problem, config, node) == first
