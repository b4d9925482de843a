"""PUCT with sampled children: against a second implementation that is written for clarity, and by hand."""

import math

import numpy as np
import pytest

from steer.search.fields import Status
from steer.search.policies import MctsConfig, make_policy
from steer.search.problem import Problem
from steer.search.tree import Tree
from tests.steer.search.policies.worlds import SPAN, Path, Scripted, Walk, at, best_value, path_of, search
from tests.steer.search.tree_kit import below


def reference(value, *, nodes: int, horizon: int, expand: int, c: float, widen: float, alpha: float) -> list[Path]:
    """The order in which one-leaf-at-a-time PUCT over distinct children expands, with the decisions by visits."""
    backed: dict[Path, list[float]] = {(): []}
    children: dict[Path, list[Path]] = {(): []}
    order: list[Path] = []

    def write(parent: Path, count: int) -> None:
        order.append(parent)
        for _ in range(count):
            child = (*parent, len(children[parent]))
            children[parent].append(child)
            children[child], backed[child] = [], []
            for depth in range(len(child) + 1):
                backed[child[:depth]].append(value(child))

    def mean(node: Path) -> float:
        return sum(backed[node]) / len(backed[node])

    root, left = (), nodes
    while left:
        share = max(1, left // (horizon - len(root)))
        left -= share
        if len(root) == horizon - 1:
            write(root, share)
            break
        while share:
            below = [n for n in children if len(n) > len(root) and n[: len(root)] == root]
            low, high = min(map(mean, below), default=0.0), max(map(mean, below), default=0.0)
            leaf = root
            while True:
                open_ = [n for n in children[leaf] if len(n) < horizon]
                visits = len(backed[leaf])
                if len(children[leaf]) < max(expand, math.ceil(widen * visits**alpha)) or not open_:
                    break
                scores = []
                for n in open_:
                    q = (mean(n) - low) / (high - low) if high > low else 0.0
                    scores.append(q + c / len(children[leaf]) * math.sqrt(visits) / (1 + len(backed[n])))
                leaf = open_[int(np.argmax(scores))]
            count = min(expand, share)
            write(leaf, count)
            share -= count
        root = max(children[root], key=lambda n: (len(backed[n]), mean(n)))
    return order


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("expand", "c", "widen", "alpha"), [(1, 1.25, 1.0, 0.5), (2, 0.3, 1.0, 0.7), (3, 4.0, 2.0, 0.5)]
)
def test_against_a_second_implementation(seed: int, expand: int, c: float, widen: float, alpha: float) -> None:
    def value(path: Path) -> float:
        draw = np.random.default_rng([seed, *path]).normal()
        return float(np.float32(draw))  # as the tree keeps it

    world = Scripted(value)
    tree, _ = search(world, "mcts", nodes=40, horizon=4, expand=expand, leaves=1, c_puct=c, widen=widen, alpha=alpha)
    order = [path_of(tree, batch[0].parent) for batch in world.batches]
    assert order == reference(value, nodes=40, horizon=4, expand=expand, c=c, widen=widen, alpha=alpha)


def test_visits_and_totals_are_those_of_what_was_written_below() -> None:
    tree, _ = search(Walk(1.0), "mcts", nodes=60, horizon=4, expand=3)
    for node in range(tree.size):
        counted = [n for n in [node, *below(tree, node)] if n != 0]
        assert tree.visits[node] == len(counted)
        assert tree.total[node] == pytest.approx(tree.value[counted].astype(float).sum())


def test_several_leaves_go_into_one_batch_and_differ() -> None:
    world = Scripted(lambda path: 0.0)
    tree, _ = search(world, "mcts", nodes=60, horizon=3, expand=4, leaves=4)
    parents = [{request.parent for request in batch} for batch in world.batches]
    assert parents[0] == {0}
    # 16 nodes are left for the first span. All values are equal, so the visits under way send each leaf elsewhere.
    assert parents[1] == {at(tree, i) for i in range(4)} and len(world.batches[1]) == 16


def test_visits_under_way_do_not_touch_values_and_are_taken_back() -> None:
    tree = Tree(SPAN, 0)
    problem = Problem(tree, tree.add_root([1], seed=0, horizon=3), nodes=60)
    function, config = make_policy("mcts", {"expand": 2, "leaves": 2, "c_puct": 9.0})
    steps = function(problem, config)
    world = Walk(0.0)
    written = world.expand(tree, next(steps))
    problem.answer(written)
    wanted = steps.send(written)
    assert tree.inflight[0] == len(wanted) == 4
    assert (tree.visits[0], tree.total[0]) == (2, pytest.approx(tree.value[written].sum()))
    steps.close()
    assert not tree.inflight.any(), "also where a budget ends it"


def test_nothing_is_chosen_among_siblings_that_are_still_being_written() -> None:
    # If the batch that expands the root also went on behind one of its older children, that child would be decided for.
    world = Scripted(lambda path: float(path[-1]))
    tree, _ = search(world, "mcts", nodes=16, horizon=2, expand=6, leaves=4)
    assert [len(batch) for batch in world.batches] == [6, 2, 8]
    assert world.batches[1][0].parent == at(tree, 5)


def test_priors_are_shares_of_draws() -> None:
    """Span 0 is drawn three times of four: with equal values it gets most of the visits."""
    world = Scripted(lambda path: 0.0, token=lambda path: int(path[-1] == 3) if len(path) == 1 else path[-1])
    tree, _ = search(world, "mcts", nodes=80, horizon=2, expand=4, leaves=1, widen=0.0)
    often, seldom = at(tree, 0), at(tree, 3)
    assert (tree.multiplicity[often], tree.multiplicity[seldom]) == (3, 1)
    assert tree.visits[often] > 2 * tree.visits[seldom] > 0


def test_a_complete_child_is_a_candidate_but_never_searched_nor_decided_for() -> None:
    world = Scripted(lambda path: 9.0 if path == (0,) else float(len(path)), ends=lambda path: path == (0,))
    tree, _ = search(world, "mcts", nodes=40, horizon=4)
    assert best_value(tree, 0) == 9.0 and not tree.has(at(tree, 0), Status.COMMITTED)
    assert max(tree.depth[: tree.size]) == 4


def test_deciding_by_visits_or_by_value() -> None:
    # Child 1 looks best at first and is searched, and disappoints; child 0 is next.
    world = Scripted(lambda path: {(0,): 0.9, (1,): 1.0}.get(path[:1], 0.0) if len(path) == 1 else 0.0)
    for commit, expected in (("visits", 1), ("value", 0)):
        tree, _ = search(world, "mcts", nodes=8, horizon=2, expand=2, leaves=1, commit=commit)
        assert tree.has(at(tree, expected), Status.COMMITTED)
    assert MctsConfig().commit == "visits"
