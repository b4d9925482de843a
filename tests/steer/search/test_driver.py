"""Budgets, statuses, interruptions, and going on: with a world that is made up, and every policy."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from steer.errors import SearchError
from steer.noise import child_key
from steer.search.budget import Budget, Outcome
from steer.search.driver import run_search
from steer.search.environment import Environment, Request
from steer.search.fields import FIELDS, Status
from steer.search.links import check_links
from steer.search.policies import POLICIES, make_policy
from steer.search.problem import Policy, Problem, Steps
from steer.search.tree import Tree
from tests.steer.search.tree_kit import below

S = 4


class MadeUp(Environment):
    """Spans, ends and values are functions of the child's key. Where `drafts`, the first child of a node costs more."""

    def __init__(self, *, drafts: bool = False, ends: float = 0.1, letters: int = 3) -> None:
        self.drafts, self.ends, self.letters = drafts, ends, letters
        self.tokens = self.calls = 0
        self.batches: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def costs(self, tree: Tree, requests: Sequence[Request], drafted: set[int]) -> list[int]:
        costs = []
        for request in requests:
            costs.append(S + (S if self.drafts and request.parent not in drafted else 0))
            drafted.add(request.parent)
        return costs

    def node_tokens(self, tree: Tree, fanout: float) -> float:
        return S * (1 + 1 / fanout if self.drafts else 1.0)

    def expand(self, tree: Tree, requests: Sequence[Request]) -> list[int]:
        self.calls += 1
        self.batches.append(len(requests))
        rows = []
        for request in requests:
            rng = np.random.default_rng(child_key(int(tree.key[request.parent]), request.index))
            rows.append((rng.integers(self.letters, size=S).tolist(), bool(rng.random() < self.ends), rng.random()))
        self.before()
        if self.drafts:
            parents = {r.parent for r in requests if not tree.has_draft[r.parent]}
            self.tokens += S * len(parents)
            tree.has_draft[list(parents)] = True
        self.tokens += S * len(requests)
        return [
            tree.add(r.parent, r.index, ids, action=r.action, ended=ended, value=value)
            for r, (ids, ended, value) in zip(requests, rows, strict=True)
        ]


@dataclass(frozen=True)
class Wide:
    """Options of `breadth`."""

    count: int = 3
    fanout: float = 3.0


def breadth(problem: Problem, config: Wide) -> Steps:
    """Expand everything, level by level, then the root for ever: never done by itself."""
    level = [problem.root]
    while True:
        written = yield [request for node in level for request in problem.ask(node, config.count)]
        level = [n for n in written if not problem.tree.is_complete(n)] or [problem.root]


def roots(*seeds: int, horizon: int = 4) -> Tree:
    tree = Tree(S, 0, capacity=1)
    for seed in seeds:
        tree.add_root([seed], seed=seed, horizon=horizon)
    return tree


def run(
    tree: Tree, budget: Budget, *, world: MadeUp | None = None, policy: str | None = None, **options: Any
) -> list[Outcome]:
    chosen: tuple[Policy, Any] = (breadth, Wide()) if policy is None else make_policy(policy)
    return run_search(world or MadeUp(), tree, options.pop("roots", tree.roots), *chosen, budget, **options)


def nodes_of(tree: Tree, root: int) -> dict[tuple[int, ...], dict[str, Any]]:
    """What the tree says of each node below a root, by its path of child indices; ids are replaced by paths."""
    names = {n: tuple(int(tree.index[m]) for m in tree.path(n)) for n in [root, *below(tree, root)]}
    links = ("parent", "root", "duplicate_of", "first_child", "last_child", "next_sibling")
    return {
        name: {f: names.get(int(tree.arrays()[f][n])) if f in links else tree.arrays()[f][n].tolist() for f in FIELDS}
        for n, name in names.items()
    }


# Budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 5, 128])
@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 7, 8, 40, 61])
def test_budgets_are_ceilings_and_are_used_up(limit: int, drafts: bool, rows: int) -> None:
    for budget, status in ((Budget(nodes=limit), "out_of_nodes"), (Budget(tokens=limit), "out_of_tokens")):
        tree, world = roots(1, 2), MadeUp(drafts=drafts)
        outcomes = run(tree, budget, world=world, rows=rows)
        assert [o.status for o in outcomes] == [status] * 2 and [o.root for o in outcomes] == tree.roots
        for outcome in outcomes:
            spent = outcome.spent
            assert spent.nodes == len(below(tree, outcome.root))
            if budget.tokens is None:
                assert spent.nodes == limit
            else:
                assert limit - 2 * S < spent.tokens <= limit
        assert sum(o.spent.tokens for o in outcomes) == world.tokens
        assert max(world.batches, default=0) <= rows
        check_whole(tree)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("drafts", [False, True])
def test_no_policy_spends_more_than_it_may(policy: str, drafts: bool) -> None:
    for limit in (1, 4, 9, 50):
        for budget in (Budget(nodes=limit), Budget(tokens=limit * S), Budget(nodes=limit, tokens=limit * S)):
            tree, world = roots(1, 2), MadeUp(drafts=drafts)
            outcomes = run(tree, budget, world=world, policy=policy)
            for outcome in outcomes:
                assert outcome.spent.nodes == len(below(tree, outcome.root)) <= (budget.nodes or limit)
                assert outcome.spent.tokens <= (budget.tokens or 2 * limit * S)
                if outcome.status in ("finished", "short"):
                    assert (outcome.status == "finished") == (tree.best(outcome.root) is not None)
            assert sum(o.spent.tokens for o in outcomes) == world.tokens
            # With a node per span and its draft, every policy finishes a text.
            if limit == 50:
                assert all(tree.best(root) is not None for root in tree.roots)
            check_whole(tree)


def check_whole(tree: Tree) -> None:
    """What is stored can be loaded: links, depths and children fit."""
    copy = Tree.of(
        {name: array.copy() for name, array in tree.arrays().items()},
        components=tree.names,
        contexts=tree.contexts,
        horizons=tree.horizons,
        deadlines=tree.deadlines,
    )
    check_links(copy)
    assert copy.roots == tree.roots


def test_a_policy_that_is_done_is_finished() -> None:
    tree = roots(1)
    policy = make_policy("best_of_n", {"n": 3})
    (outcome,) = run_search(MadeUp(ends=0.0), tree, tree.roots, *policy, Budget(nodes=10**6, tokens=10**9))
    assert (outcome.status, outcome.spent.nodes, outcome.spent.tokens) == ("finished", 12, 12 * S)
    assert outcome.spent.seconds > 0


def test_a_policy_that_is_done_without_a_complete_node_fell_short() -> None:
    tree = roots(1, 2)
    tree.horizons[1] = 2
    outcomes = run_search(MadeUp(ends=0.0), tree, tree.roots, *make_policy("mcts"), Budget(nodes=3))
    assert [(o.status, o.spent.nodes) for o in outcomes] == [("short", 3), ("finished", 3)]
    idle = roots(1)

    def nothing(problem: Problem, config: Any) -> Steps:
        yield from ()

    assert run_search(MadeUp(), idle, idle.roots, nothing, None, Budget(nodes=3))[0].status == "short"


def test_time_is_looked_at_between_batches() -> None:
    tree, world = roots(1, 2), MadeUp()
    world.before = lambda: time.sleep(0.02)
    began = time.monotonic()
    outcomes = run(tree, Budget(seconds=0.05), world=world, rows=4)
    assert [o.status for o in outcomes] == ["out_of_time"] * 2
    assert time.monotonic() - began < 10 and 1 <= world.calls <= 4
    assert all(o.spent.seconds >= 0.05 for o in outcomes)
    assert sum(o.spent.nodes for o in outcomes) == tree.size - 2
    check_whole(tree)


@pytest.mark.parametrize("limits", [{}, {"tokens": 0}, {"nodes": -1}, {"seconds": 0.0}, {"nodes": 3, "tokens": 0}])
def test_budgets_that_make_no_sense(limits: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match="needs a budget" if not limits else "above 0"):
        Budget(**limits)


def test_a_batch_has_rows() -> None:
    with pytest.raises(SearchError, match="rows=0"):
        run(roots(1), Budget(nodes=3), rows=0)


# Interruptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, *POLICIES])
def test_an_interrupted_search_goes_on_to_the_same_end(policy: str | None) -> None:
    budget = Budget(nodes=40)
    whole = roots(1, 2)
    wanted = run(whole, budget, policy=policy)
    for stop in range(1, 8, 2):
        tree, world = roots(1, 2), MadeUp()

        def interrupt(world: MadeUp = world, stop: int = stop) -> None:
            if world.calls == stop:
                raise KeyboardInterrupt

        world.before = interrupt
        outcomes = run(tree, budget, world=world, policy=policy, rows=5)
        check_whole(tree)
        if world.calls < stop:
            continue
        assert "interrupted" in [o.status for o in outcomes]
        assert sum(o.spent.nodes for o in outcomes) == tree.size - 2 == sum(world.batches[: stop - 1])
        again = run(tree, budget, policy=policy, rows=5)
        assert [(o.status, o.spent.nodes, o.spent.tokens) for o in again] == [
            (o.status, o.spent.nodes, o.spent.tokens) for o in wanted
        ]
        for root in tree.roots:
            assert nodes_of(tree, root) == nodes_of(whole, root)


def test_an_error_leaves_a_whole_tree_and_is_raised() -> None:
    tree, world = roots(1, 2), MadeUp()

    def fail() -> None:
        if world.calls == 3:
            raise ValueError("the model broke")

    world.before = fail
    with pytest.raises(ValueError, match="the model broke"):
        run(tree, Budget(nodes=40), world=world, rows=5)
    check_whole(tree)
    assert tree.size == 2 + sum(world.batches[:2])


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("kind", ["nodes", "tokens"])
def test_going_on_with_a_larger_budget_is_one_run(kind: str, drafts: bool) -> None:
    """For a policy that does not plan: what the small budget wrote is exactly what the large one begins with."""
    for small, large in ((1, 30), (13, 50), (29, 30)):
        scale = 1 if kind == "nodes" else S
        whole = roots(1, 2)
        wanted = run(whole, Budget(**{kind: large * scale}), world=MadeUp(drafts=drafts))
        tree, world = roots(1, 2), MadeUp(drafts=drafts)
        run(tree, Budget(**{kind: small * scale}), world=world)
        before = world.tokens
        got = run(tree, Budget(**{kind: large * scale}), world=world)
        assert world.tokens > before
        assert [(o.status, o.spent.nodes, o.spent.tokens) for o in got] == [
            (o.status, o.spent.nodes, o.spent.tokens) for o in wanted
        ]
        for root in tree.roots:
            assert nodes_of(tree, root) == nodes_of(whole, root)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_that_plan_find_all_that_one_run_finds(policy: str) -> None:
    """A plan depends on the budget, so a small one may leave nodes that the large one has no use for."""
    whole = roots(1, 2)
    run(whole, Budget(nodes=60), policy=policy)
    tree = roots(1, 2)
    run(tree, Budget(nodes=17), policy=policy)
    run(tree, Budget(nodes=60), policy=policy)
    for root in tree.roots:
        got, wanted = nodes_of(tree, root), nodes_of(whole, root)
        assert set(wanted) <= set(got)
        same = [
            f for f in FIELDS if f not in ("n_children", "multiplicity", "first_child", "last_child", "next_sibling")
        ]
        for name, fields in wanted.items():
            assert {f: got[name][f] for f in same} == {f: fields[f] for f in same}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_finished_search_run_again_writes_nothing(policy: str) -> None:
    tree = roots(1, 2)
    first = run(tree, Budget(nodes=40), policy=policy)
    before = {name: array.copy() for name, array in tree.arrays().items()}
    world = MadeUp()
    second = run(tree, Budget(nodes=40), policy=policy, world=world)
    assert world.calls == 0
    assert [(o.status, o.spent.nodes, o.spent.tokens) for o in first] == [
        (o.status, o.spent.nodes, o.spent.tokens) for o in second
    ]
    for name, array in before.items():
        np.testing.assert_array_equal(tree.arrays()[name], array)


def test_another_menu_is_noticed() -> None:
    tree = roots(1)
    run(tree, Budget(nodes=10), actions=2)
    with pytest.raises(SearchError, match="written by action 1 of its menu, the policy asks for 0"):
        run(tree, Budget(nodes=10), actions=1)


# Side by side ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, *POLICIES])
def test_side_by_side_is_one_by_one(policy: str | None) -> None:
    kinds = ((1, 4), (2, 2), (3, 6))  # seeds and horizons
    for budget in (Budget(nodes=30), Budget(tokens=25 * S)):
        together = Tree(S, 0)
        for seed, horizon in kinds:
            together.add_root([seed], seed=seed, horizon=horizon)
        outcomes = run(together, budget, policy=policy, rows=7, world=MadeUp(drafts=True))
        for outcome, (seed, horizon) in zip(outcomes, kinds, strict=True):
            alone = roots(seed, horizon=horizon)
            (wanted,) = run(alone, budget, policy=policy, world=MadeUp(drafts=True))
            assert nodes_of(together, outcome.root) == nodes_of(alone, 0)
            assert (outcome.status, outcome.spent.nodes, outcome.spent.tokens) == (
                wanted.status,
                wanted.spent.nodes,
                wanted.spent.tokens,
            )


def test_some_roots_only() -> None:
    tree = roots(1, 2, 3)
    (outcome,) = run(tree, Budget(nodes=9), roots=[1])
    assert outcome.root == 1 and [len(below(tree, r)) for r in tree.roots] == [0, 9, 0]


def test_progress_is_told_after_each_batch() -> None:
    told = []
    tree, world = roots(1, 2), MadeUp()
    outcomes = run(
        tree,
        Budget(nodes=20),
        world=world,
        rows=6,
        on_round=lambda outcomes, active: told.append((sum(o.spent.nodes for o in outcomes), active)),
    )
    assert [nodes for nodes, _ in told] == np.cumsum(world.batches).tolist()
    assert told[-1][0] == sum(o.spent.nodes for o in outcomes) and told[0][1] == 2


def test_a_policy_is_closed_however_it_ends() -> None:
    closed = []

    def careful(problem: Problem, config: Any) -> Steps:
        try:
            yield from breadth(problem, Wide())
        finally:
            closed.append(problem.root)

    tree = roots(1, 2)
    run_search(MadeUp(), tree, tree.roots, careful, None, Budget(nodes=5))
    world = MadeUp()

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.before = interrupt
    run_search(world, roots(1), [0], careful, None, Budget(nodes=5))
    assert sorted(closed) == [0, 0, 1]
    assert not (tree.status[: tree.size] & (Status.COMMITTED | Status.PRUNED)).any()
