"""Weave: its rounds by hand, its backups, and what it samples."""

import math
from collections import Counter

import numpy as np
import pytest

from steer.search.fields import Status
from tests.steer.search.policies.worlds import Scripted, Walk, at, path_of, search


def expanded(world: Scripted, tree) -> list[tuple[int, ...]]:
    """Paths of the nodes that were expanded, in order."""
    return [path_of(tree, batch[0].parent) for batch in world.batches]


def test_best_first_by_hand() -> None:
    """T is so small that the noise does not matter: 3 expansions of 2 in the first round, then the beam moves."""
    values = {(0,): 5, (1,): 3, (0, 0): 1, (0, 1): 2, (1, 0): 4, (1, 1): 0}
    world = Scripted(lambda path: values.get(path, 6))
    tree, _ = search(world, "weave", nodes=8, horizon=3, round_budget=6, n_expand=2, max_lookahead=3, temperature=1e-3)
    # The root; its better child; then (1,) with 3 before (0, 1) with 2. The logit of (0,) is then that of (0, 1), about
    # 2, and of (1,) that of (1, 0), about 4, so the beam goes to (1,). One node is kept for the last round, so that the
    # second expands (1, 0) by one only; it turns out well and is expanded again.
    assert expanded(world, tree) == [(), (0,), (1,), (1, 0), (1, 0)]
    assert tree.logit[at(tree, 0)] == pytest.approx(2 / 1e-3 - math.log(2), rel=1e-4)
    assert tree.has(at(tree, 1), Status.COMMITTED) and tree.has(at(tree, 0), Status.PRUNED)
    assert tree.has(at(tree, 1, 0), Status.COMMITTED)


def test_a_committed_leaf_comes_first_and_the_lookahead_holds() -> None:
    world = Scripted(lambda path: float(len(path)))  # deeper always looks better
    tree, _ = search(
        world, "weave", nodes=12, horizon=4, round_budget=3, n_expand=1, max_lookahead=2, widen=False, temperature=0.01
    )
    # Two spans below the root, and no further though nodes are left; then one more depth for each round.
    assert expanded(world, tree) == [(), (0,), (0, 0), (0, 0, 0)]


def test_widening_spends_what_the_lookahead_leaves() -> None:
    world = Scripted(lambda path: -float(path[-1]))
    tree, [outcome] = search(world, "weave", nodes=12, horizon=2, round_budget=6, n_expand=2, temperature=0.01)
    assert outcome.spent.nodes == 12
    world = Scripted(lambda path: -float(path[-1]))
    _, [outcome] = search(world, "weave", nodes=12, horizon=2, n_expand=2, temperature=0.01, widen=False)
    assert outcome.spent.nodes < 12


@pytest.mark.parametrize(("backup", "gain"), [("logsumexp", math.log(4)), ("logmeanexp", 0.0)])
def test_only_the_sum_favours_expanded_nodes(backup: str, gain: float) -> None:
    """All values are the same, so nothing was learnt by expanding; the sum still adds log(n_expand)."""
    world = Scripted(lambda path: 0.6)
    tree, _ = search(
        world, "weave", nodes=9, horizon=2, round_budget=8, n_expand=4, temperature=0.2, backup=backup, widen=False
    )
    first = [at(tree, i) for i in range(4)]
    logits = {bool(tree.n_children[n]): float(tree.logit[n]) for n in first}
    assert logits[False] == pytest.approx(0.6 / 0.2)
    assert logits[True] == pytest.approx(0.6 / 0.2 + gain, abs=1e-5)


def test_gumbels_are_standard_and_drawn_once() -> None:
    tree, _ = search(Walk(1.0), "weave", nodes=600, horizon=2)
    noise = tree.gumbel[1 : tree.size].astype(float)
    assert noise.mean() == pytest.approx(0.577, abs=0.2) and noise.std() == pytest.approx(math.pi / 6**0.5, abs=0.2)
    assert len(np.unique(noise)) == len(noise)


def test_the_first_beam_follows_the_tilted_distribution() -> None:
    """Two children, values log 3 apart at T = 1: the better one is committed to three times of four."""
    chosen = Counter()
    tree, _ = search(
        Scripted(lambda path: math.log(3) * path[0]), "weave", nodes=3, horizon=2, seeds=range(400),
        round_budget=2, n_expand=2, max_lookahead=1, temperature=1.0,
    )  # fmt: skip
    for node in range(tree.size):
        if tree.has(node, Status.COMMITTED):
            chosen[int(tree.index[node])] += 1
            siblings = [n for n in tree.children(int(tree.parent[node]))]
            assert np.exp(tree.phi[siblings]).sum() == pytest.approx(1)
    assert sum(chosen.values()) == 400 and chosen[1] / 400 == pytest.approx(0.75, abs=0.07)


def test_a_wide_beam_holds_the_best_without_replacement() -> None:
    world = Scripted(lambda path: float(path[0]) if len(path) == 1 else 0.0)
    tree, _ = search(
        world, "weave", nodes=30, horizon=3, round_budget=6, n_expand=6, beam_width=2, max_lookahead=1, temperature=0.01
    )
    kept = [n for n in range(tree.size) if tree.has(n, Status.COMMITTED) and tree.depth[n] == 1]
    assert sorted(int(tree.index[n]) for n in kept) == [4, 5]
