"""Best of n, beam search and particle filters: policies that go down level by level."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.search.fields import Status
from steer.search.policies.backup import log_softmax
from steer.search.policies.smc import effective_size, systematic
from tests.steer.search.policies.worlds import Path, Scripted, Walk, at, best_value, path_of, search


def test_best_of_n_writes_spans_of_all_continuations_in_one_batch() -> None:
    world = Scripted(lambda path: path[0] % 3)
    tree, [outcome] = search(world, "best_of_n", nodes=13, horizon=3)
    assert [len(batch) for batch in world.batches] == [4, 4, 4]
    assert best_value(tree, 0) == 2 and outcome.spent.nodes == 12


def test_best_of_n_starts_anew_with_what_short_stories_left() -> None:
    world = Scripted(lambda path: 0.0, ends=lambda path: path[0] < 3)
    search(world, "best_of_n", nodes=12, horizon=3)
    # 3 of 4 end; the other goes on to the end; 6 are left, enough for two more
    assert [len(batch) for batch in world.batches] == [4, 1, 1, 2, 2, 2]
    world = Scripted(lambda path: 0.0, ends=lambda path: path[0] < 3)
    search(world, "best_of_n", nodes=12, horizon=3, n=4)
    assert [len(batch) for batch in world.batches] == [4, 1, 1]


def test_the_beam_by_hand() -> None:
    """Width 2, 3 children each: the best two of each depth go on."""
    values: dict[Path, float] = {(0,): 1, (1,): 5, (2,): 3, (3,): 4, (4,): 0, (5,): 2}
    values |= {(1, 0): 1, (1, 1): 9, (1, 2): 2, (3, 0): 8, (3, 1): 3, (3, 2): 7}
    world = Scripted(lambda path: values[path] if path in values else 10 * path[0] + path[-1] / 10)
    tree, [outcome] = search(world, "beam", nodes=100, horizon=3, width=2, expand=3)
    assert [len(batch) for batch in world.batches] == [6, 6, 6]
    kept = [n for n in range(tree.size) if tree.has(n, Status.COMMITTED)]
    assert {path_of(tree, n) for n in kept} == {(1,), (3,), (1, 1), (3, 0), (3, 0, 2), (3, 0, 1)}
    assert best_value(tree, 0) == pytest.approx(30.2) and outcome.spent.nodes == 18


def test_duplicates_and_complete_nodes_in_the_beam() -> None:
    # Children 0 and 1 are the same span, child 3 ends the story: the beam of three holds 0, 2 and 3.
    world = Scripted(
        lambda path: [5, 5, 3, 4, 1, 0][path[0]] if len(path) == 1 else 0.0,
        ends=lambda path: path == (3,),
        token=lambda path: 0 if path == (1,) else path[-1],
    )
    tree, _ = search(world, "beam", nodes=100, horizon=2, width=3, expand=2)
    assert tree.has(at(tree, 1), Status.DUPLICATE)
    assert [tree.n_children[at(tree, i)] for i in range(6)] == [2, 0, 2, 0, 0, 0]
    assert tree.has(at(tree, 3), Status.COMMITTED), "it keeps its place against lower values"


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=9), st.floats(0, 1, exclude_max=True))
def test_systematic_draws_are_within_one_of_their_shares(log_weights: list[float], uniform: float) -> None:
    n = len(log_weights)
    shares = n * np.exp(log_softmax(log_weights))
    counts = np.bincount(systematic(np.array(log_weights), uniform), minlength=n)
    assert counts.sum() == n
    assert (counts >= np.floor(shares - 1e-9)).all() and (counts <= np.ceil(shares + 1e-9)).all()


def test_systematic_draws_are_unbiased() -> None:
    log_weights = np.array([0.3, -1.0, 2.0, 0.0, -0.5])
    grid = (np.arange(2_000) + 0.5) / 2_000
    mean = sum(np.bincount(systematic(log_weights, u), minlength=5) for u in grid) / len(grid)
    assert mean == pytest.approx(5 * np.exp(log_softmax(log_weights)), abs=5e-3)


def test_the_effective_size() -> None:
    assert effective_size(np.full(6, -300.0)) == pytest.approx(6)
    assert effective_size(np.array([0.0, -800.0, -900.0])) == pytest.approx(1)
    assert effective_size(np.log([2.0, 1.0, 1.0])) == pytest.approx(16 / 6)


def test_weights_of_particles_telescope() -> None:
    """Without new draws, a particle's weight is that of its last value alone, whatever was estimated on the way."""
    tree, _ = search(Walk(3.0), "smc", nodes=24, horizon=4, temperature=0.3, threshold=0.0)
    ends = [n for n in range(tree.size) if tree.is_complete(n)]
    assert len(ends) == 6
    assert tree.logit[ends] == pytest.approx(tree.value[ends] / 0.3, rel=1e-4, abs=1e-4)


def test_particles_multiply_under_one_node() -> None:
    # One of four particles is far better: all go on behind it, as four children of the same node.
    world = Scripted(lambda path: float(path[0] == 2))
    tree, _ = search(world, "smc", nodes=12, horizon=3, temperature=0.01)
    assert [tree.n_children[at(tree, i)] for i in range(4)] == [0, 0, 4, 0]
    assert all(tree.has(at(tree, i), Status.PRUNED) for i in (0, 1, 3))
    assert [tree.n_children[at(tree, 2, i)] for i in range(4)] == [1, 1, 1, 1], "equal weights are not drawn anew"


def test_complete_particles_keep_their_weight_and_cost_nothing() -> None:
    world = Scripted(lambda path: 0.0, ends=lambda path: path == (1,))
    search(world, "smc", nodes=12, horizon=3, particles=4, threshold=1.0)
    assert [len(batch) for batch in world.batches] == [4, 3, 3]


def test_particles_follow_the_tilted_distribution() -> None:
    """Spans 0 and 1 are equally likely, their values are log 3 apart at T = 1: three of four particles go with 1."""
    ends = Counter()
    for seed in range(200):
        tree, _ = search(
            Scripted(lambda path: math.log(3) * path[0], token=lambda path: path[-1]),
            "smc", nodes=4, horizon=2, seeds=[seed], temperature=1.0, threshold=1.0,
        )  # fmt: skip
        ends += Counter(path_of(tree, n)[0] for n in range(tree.size) if tree.depth[n] == 2)
    assert sum(ends.values()) == 400
    assert ends[1] / 400 == pytest.approx(0.75, abs=0.07)
