"""What holds for every policy."""

from typing import Any

import numpy as np
import pytest

from steer.errors import SearchError
from steer.search.fields import STATISTICS, Status
from steer.search.policies import POLICIES, make_policy
from steer.search.problem import Problem
from steer.search.tree import Tree
from tests.steer.search.policies.worlds import SPAN, Path, Scripted, Walk, best_value, search

NAMES = list(POLICIES)
SPAN_BY_SPAN = ["weave", "mcts", "gumbel"]
each = pytest.mark.parametrize("policy", NAMES)

# Options away from the defaults, under which budgets and ends must hold as well.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("best_of_n", {"n": 3}),
    ("beam", {"width": 2, "expand": 3}),
    ("beam", {"width": 50}),
    ("smc", {"particles": 50, "temperature": 0.01, "threshold": 1.0}),
    ("weave", {"budget": 576, "round_budget": 96, "n_expand": 32, "temperature": 0.2}),
    ("weave", {"beam_width": 3, "max_lookahead": 1, "leaves": 2, "backup": "logsumexp"}),
    ("weave", {"widen": False, "n_expand": 2}),
    ("mcts", {"expand": 1, "leaves": 8, "commit": "value"}),
    ("mcts", {"expand": 3, "widen": 0.0, "alpha": 0.0, "c_puct": 0.0}),
    ("gumbel", {"candidates": 1}),
    ("gumbel", {"candidates": 16, "width": 1, "c_scale": 0.1}),
]
variants = pytest.mark.parametrize(("policy", "options"), [(name, {}) for name in NAMES] + VARIANTS)


def same(a: Tree, b: Tree) -> None:
    for name, array in a.arrays().items():
        assert np.array_equal(array, b.arrays()[name]), name


@variants
@pytest.mark.parametrize("ends", [0.0, 0.3])
@pytest.mark.parametrize("horizon", [1, 2, 6])
def test_every_budget_is_kept_and_enough_for_a_complete_node(
    policy: str, options: dict[str, Any], horizon: int, ends: float
) -> None:
    for nodes in (horizon, horizon + 1, 2 * horizon, 3 * horizon + 1, 41):
        tree, outcomes = search(Walk(1.0, ends), policy, nodes=nodes, horizon=horizon, seeds=[3, 4], **options)
        for outcome in outcomes:
            assert outcome.status == "finished", "the policy asked for more than there is"
            assert outcome.spent.nodes <= nodes
            assert tree.best(outcome.root) is not None
        for name in ("total", "logit", "gumbel", "phi"):
            assert np.isfinite(tree.arrays()[name]).all()
        assert not tree.inflight.any()


@variants
def test_too_small_a_budget_is_spent_on_going_as_deep_as_it_goes(policy: str, options: dict[str, Any]) -> None:
    tree, [outcome] = search(Walk(1.0), policy, nodes=3, horizon=6, **options)
    assert (outcome.status, outcome.spent.nodes, tree.best(0)) == ("short", 3, None)
    assert tree.depth[: tree.size].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("policy", ["best_of_n", "beam", "smc", *SPAN_BY_SPAN])
def test_the_whole_budget_is_used(policy: str) -> None:
    _, [outcome] = search(Walk(1.0), policy, nodes=48, horizon=6)
    assert outcome.spent.nodes == 48


@each
def test_where_every_story_ends_at_once_all_nodes_become_candidates(policy: str) -> None:
    world = Scripted(lambda path: -abs(path[0] - 20), ends=lambda path: True)
    tree, [outcome] = search(world, policy, nodes=30, horizon=5)
    assert best_value(tree, 0) == 0
    assert outcome.spent.nodes > 25 and (tree.depth[1 : tree.size] == 1).all()


@each
def test_equal_values_and_duplicates_are_no_trouble(policy: str) -> None:
    tree, [outcome] = search(Scripted(lambda path: 1.0, token=lambda path: 7), policy, nodes=40, horizon=4)
    assert outcome.status == "finished" and best_value(tree, 0) == 1.0
    assert np.isfinite(tree.phi).all() and np.isfinite(tree.gumbel).all() and np.isfinite(tree.logit).all()
    duplicates = np.flatnonzero(tree.status[: tree.size] & Status.DUPLICATE)
    assert len(duplicates) and not tree.n_children[duplicates].any(), "a duplicate was expanded"


@each
def test_unlimited_nodes_still_end(policy: str) -> None:
    tree, [outcome] = search(Walk(1.0), policy, nodes=None, horizon=2)
    assert outcome.status == "finished" and outcome.spent.nodes == 64
    assert tree.best(0) is not None


@variants
def test_a_search_is_a_function_of_its_seed(policy: str, options: dict[str, Any]) -> None:
    first, _ = search(Walk(1.0, 0.1), policy, nodes=40, horizon=4, seeds=[5, 6], **options)
    again, _ = search(Walk(1.0, 0.1), policy, nodes=40, horizon=4, seeds=[5, 6], **options)
    same(first, again)
    alone, _ = search(Walk(1.0, 0.1), policy, nodes=40, horizon=4, seeds=[6], **options)
    assert best_value(alone, 0) == best_value(first, 1), "what is searched beside it must not matter"


@variants
def test_running_again_over_the_nodes_decides_the_same(policy: str, options: dict[str, Any]) -> None:
    world = Walk(1.0, 0.1)
    tree, _ = search(world, policy, nodes=40, horizon=4, **options)
    before = {name: array.copy() for name, array in tree.arrays().items()}
    search(world, policy, nodes=40, horizon=4, tree=tree, **options)
    for name in (*STATISTICS, "status", "parent"):
        assert np.array_equal(tree.arrays()[name], before[name]), name


@variants
def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not(policy: str, options: dict[str, Any]) -> None:
    whole, _ = search(Walk(1.0), policy, nodes=40, horizon=4, **options)
    for batches in (1, 3):
        world, tree = Walk(1.0), Tree(SPAN, 0)
        problem = Problem(tree, tree.add_root([1], seed=0, horizon=4), nodes=40)
        function, config = make_policy(policy, options)
        steps = function(problem, config)
        wanted = next(steps)
        for _ in range(batches):
            written = world.expand(tree, wanted)
            problem.answer(written)
            wanted = steps.send(written)
        world.expand(tree, wanted[:1])  # the batch in which it stopped was written in part
        steps.close()
        search(world, policy, nodes=40, horizon=4, tree=tree, **options)
        key = {int(k): n for n, k in enumerate(tree.key[: tree.size])}
        assert tree.size == whole.size
        rows = [key[int(k)] for k in whole.key[: whole.size]]
        for name in ("visits", "total", "logit", "gumbel", "phi", "status", "value"):
            assert np.array_equal(tree.arrays()[name][rows], whole.arrays()[name]), name


@each
def test_children_take_turns_in_the_menu(policy: str) -> None:
    tree, _ = search(Walk(1.0), policy, nodes=40, horizon=2, actions=3)
    assert (tree.action[1 : tree.size] == tree.index[1 : tree.size] % 3).all()
    assert set(tree.action[1 : tree.size].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("policy", [name for name in NAMES if name != "best_of_n"])
def test_with_perfect_values_the_best_path_is_found(policy: str) -> None:
    target = (2, 0, 3, 1)

    def value(path: Path) -> float:
        return sum(float(index % 4 == wish) for index, wish in zip(path, target, strict=False))

    tree, _ = search(Scripted(value, token=lambda path: path[-1] % 4), policy, nodes=100, horizon=4)
    assert best_value(tree, 0) == 4


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("policy", [name for name in NAMES if name != "best_of_n"])
def test_search_beats_independent_continuations_at_equal_nodes(policy: str, noise: float) -> None:
    seeds = range(25)
    found = {}
    for name in ("best_of_n", policy):
        tree, _ = search(Walk(noise), name, nodes=48, horizon=6, seeds=seeds)
        found[name] = np.array([best_value(tree, root) for root in tree.roots])
    gain = found[policy] - found["best_of_n"]
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(seeds))


@pytest.mark.parametrize("policy", SPAN_BY_SPAN)
def test_decisions_are_marked(policy: str) -> None:
    tree, _ = search(Walk(0.5), policy, nodes=48, horizon=4)
    committed = np.flatnonzero(tree.status[: tree.size] & Status.COMMITTED)
    assert tree.depth[committed].tolist() == [1, 2, 3], "one at each depth before the last"
    for node in committed:
        siblings = [n for n in tree.children(int(tree.parent[node])) if n != node]
        assert all(tree.has(n, Status.PRUNED) for n in siblings if not tree.has(n, Status.DUPLICATE))
    assert tree.parent[committed[1:]].tolist() == committed[:-1].tolist()


def test_policies_are_made_by_name() -> None:
    policy, config = make_policy("mcts", {"leaves": 2})
    assert policy is POLICIES["mcts"][0] and config.leaves == 2
    with pytest.raises(SearchError, match="unknown policy 'mtcs'; expected one of best_of_n, beam"):
        make_policy("mtcs")
    with pytest.raises(SearchError, match="BeamConfig: leaves: unknown key; expected one of width, expand"):
        make_policy("beam", {"leaves": 2})


@pytest.mark.parametrize(
    ("policy", "option", "value"),
    [
        ("best_of_n", "n", 0),
        ("beam", "width", 1.5),
        ("beam", "expand", True),
        ("smc", "temperature", 0.0),
        ("smc", "temperature", float("nan")),
        ("smc", "threshold", 1.1),
        ("weave", "backup", "mean"),
        ("weave", "temperature", -1),
        ("weave", "max_lookahead", 0),
        ("mcts", "alpha", 2.0),
        ("mcts", "commit", "luck"),
        ("mcts", "c_puct", float("inf")),
        ("gumbel", "candidates", -1),
        ("gumbel", "c_scale", "much"),
    ],
)
def test_options_out_of_range_are_refused(policy: str, option: str, value: Any) -> None:
    with pytest.raises(SearchError, match=option):
        make_policy(policy, {option: value})
