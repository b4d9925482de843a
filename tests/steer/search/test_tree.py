"""The tree and a policy's view of it: laws that hold for any forest."""

import numpy as np
import pytest

from steer.errors import SearchError
from steer.noise import child_key
from steer.search.environment import Request
from steer.search.fields import FIELDS, NONE, Status
from steer.search.links import check_links
from steer.search.problem import Problem
from steer.search.tree import Tree
from tests.steer.search.tree_kit import below


def span(*ids: int) -> list[int]:
    return [*ids, *[9] * (4 - len(ids))]


def random_tree(seed: int, nodes: int = 70) -> Tree:
    """Three roots, children of random nodes; some stories end, some spans are the same."""
    rng = np.random.default_rng(seed)
    tree = Tree(4, 2, ("a", "b"), capacity=1)
    for number in range(3):
        tree.add_root([number], seed=number, horizon=3 + number, deadline=6)
    counts: dict[int, int] = {}
    while tree.size < nodes:
        parent = int(rng.integers(tree.size))
        if tree.is_complete(parent):
            continue
        index = counts.get(parent, 0)
        counts[parent] = index + 1
        ended = bool(rng.random() < 0.2)
        ids = rng.integers(2, size=int(rng.integers(1, 5)) if ended else 4)
        components = rng.random(2).astype(np.float32)
        tree.add(parent, index, ids.tolist(), ended=ended, value=float(rng.random()), components=components)
    return tree


def again(tree: Tree) -> Tree:
    """The tree that its arrays make."""
    return Tree.of(
        tree.arrays(),
        components=tree.names,
        contexts=tree.contexts,
        horizons=tree.horizons,
        deadlines=tree.deadlines,
    )


@pytest.fixture(params=range(3))
def tree(request: pytest.FixtureRequest) -> Tree:
    return random_tree(request.param)


def test_links_paths_and_arrays_tell_the_same(tree: Tree) -> None:
    check_links(again(tree))
    parents = tree.parent[: tree.size]
    for node in range(tree.size):
        assert list(tree.children(node)) == np.flatnonzero(parents == node).tolist()
        assert tree.n_children[node] == len(list(tree.children(node)))
        path = tree.path(node)
        assert len(path) == tree.depth[node]
        assert [*parents[path]] == ([int(tree.root[node]), *path[:-1]] if path else [])
        assert tree.ids(node) == [token for n in path for token in tree.tokens[n, : tree.n_tokens[n]]]
        under = {n for n in range(tree.size) if node in tree.path(n) and n != node}
        if parents[node] != NONE:
            assert set(below(tree, node)) == under
            assert tree.child(int(parents[node]), int(tree.index[node])) == node
    assert sorted(n for root in tree.roots for n in [root, *below(tree, root)]) == list(range(tree.size))


def test_what_belongs_to_a_root_is_read_from_any_of_its_nodes(tree: Tree) -> None:
    for node in range(tree.size):
        number = tree.number(node)
        assert (tree.context(node), tree.horizon(node), tree.deadline(node)) == ((number,), 3 + number, 6)


def test_complete_nodes_ended_or_stand_at_the_horizon(tree: Tree) -> None:
    for node in range(tree.size):
        ended = tree.has(node, Status.ENDED)
        assert tree.is_complete(node) == (ended or tree.depth[node] == tree.horizon(node))
        assert ended or tree.n_tokens[node] in (0, 4)


def test_twins_are_siblings_with_the_same_tokens_and_counted_once(tree: Tree) -> None:
    for node in range(tree.size):
        children = list(tree.children(node))
        spans = [tuple(tree.span(child)) for child in children]
        for place, child in enumerate(children):
            first = children[spans.index(spans[place])]
            assert tree.has(child, Status.DUPLICATE) == (first != child)
            assert tree.duplicate_of[child] == (NONE if first == child else first)
            assert tree.multiplicity[child] == (spans.count(spans[place]) if first == child else 1)


def test_a_shorter_span_is_no_twin_of_one_that_is_padded_the_same() -> None:
    tree = Tree(4, 0)
    root = tree.add_root([1], seed=0, horizon=2)
    tree.add(root, 0, [5, 0], ended=True)
    other = tree.add(root, 1, [5, 0, 0, 0])
    assert not tree.has(other, Status.DUPLICATE)


def test_keys_depend_on_seed_and_path_alone() -> None:
    one, other = Tree(4, 0), Tree(4, 0, capacity=1)
    a = one.add_root([1], seed=5, horizon=3)
    other.add_root([2], seed=6, horizon=3)
    b = other.add_root([9, 9], seed=5, horizon=2)
    first = one.add(a, 0, span(1))
    deep = one.add(one.add(a, 7, span(2)), 1, span(3))
    late = other.add(other.add(b, 7, span(4)), 1, span(5))
    assert one.key[deep] == other.key[late] == child_key(child_key(5, 7), 1)
    assert len({int(one.key[n]) for n in (a, first, deep)}) == 3


def test_backing_up_counts_on_the_path_only(tree: Tree) -> None:
    rng = np.random.default_rng(1)
    visits, total = np.zeros(tree.size), np.zeros(tree.size)
    for _ in range(50):
        node, value = int(rng.integers(tree.size)), float(rng.random())
        tree.back_up(node, value)
        tree.add_inflight(node, 2)
        on_path = [*tree.path(node), int(tree.root[node])]
        visits[on_path] += 1
        total[on_path] += value
    np.testing.assert_array_equal(tree.visits[: tree.size], visits)
    np.testing.assert_array_equal(tree.inflight[: tree.size], 2 * visits)
    for node in range(tree.size):
        mean = total[node] / visits[node] if visits[node] else tree.value[node]
        assert tree.mean(node) == pytest.approx(mean)
    tree.mark(3, Status.COMMITTED | Status.PRUNED)
    status = tree.status[: tree.size] & ~(Status.COMMITTED | Status.PRUNED)
    tree.reset_statistics()
    np.testing.assert_array_equal(tree.status[: tree.size], status)
    assert not tree.visits.any() and not tree.inflight.any() and not tree.total.any()


def test_the_best_is_complete_and_the_furthest_is_deepest(tree: Tree) -> None:
    for root in tree.roots:
        nodes = [root, *below(tree, root)]
        complete = [n for n in nodes if tree.is_complete(n)]
        best = tree.best(root)
        assert best == (max(complete, key=lambda n: (tree.value[n], -n)) if complete else None)
        furthest = max(nodes, key=lambda n: (tree.depth[n], tree.value[n], -n))
        assert tree.furthest(root) == furthest
    empty = Tree(4, 0)
    root = empty.add_root([1], seed=0, horizon=1)
    assert (empty.best(root), empty.furthest(root), empty.ids(root)) == (None, root, [])


def test_growing_changes_nothing_and_ids_stay(tree: Tree) -> None:
    before = {name: array.copy() for name, array in tree.arrays().items()}
    size = tree.size
    leaf = next(n for n in range(size) if not tree.is_complete(n) and not tree.n_children[n])
    for index in range(3 * tree.capacity):
        tree.add(leaf, index, span(index, index // 256))
    for name, array in before.items():
        changed = np.flatnonzero((tree.arrays()[name][:size] != array).reshape(size, -1).any(1))
        assert set(changed) <= {leaf}, name


def test_arrays_make_the_tree_again(tree: Tree) -> None:
    copy = again(tree)
    assert copy.roots == tree.roots and set(copy.arrays()) == set(FIELDS)
    for name, array in tree.arrays().items():
        np.testing.assert_array_equal(copy.arrays()[name], array)
    leaf = next(n for n in range(tree.size) if not tree.is_complete(n))
    index = int(tree.n_children[leaf])
    assert copy.add(leaf, index, span(1)) == tree.add(leaf, index, span(1))
    with pytest.raises(SearchError, match="has a child"):
        copy.add(leaf, index, span(1))


def test_nothing_is_added_where_it_does_not_fit() -> None:
    tree = Tree(4, 0)
    root = tree.add_root([1], seed=0, horizon=1)
    node = tree.add(root, 0, span(1))
    before = {name: array.copy() for name, array in tree.arrays().items()}
    for parent, index, ids, ended, match in (
        (root, 0, span(1), False, "has a child 0 already"),
        (node, 0, span(1), False, "is complete"),
        (root, 1, [], True, "or fewer where the story ended; got 0"),
        (root, 1, [1] * 5, True, "got 5"),
        (root, 1, [1] * 3, False, "got 3"),
    ):
        with pytest.raises(SearchError, match=match):
            tree.add(parent, index, ids, ended=ended)
    for name, array in before.items():
        np.testing.assert_array_equal(tree.arrays()[name], array)


@pytest.mark.parametrize(
    ("options", "match"),
    [((0, 1), "span_tokens=0"), ((4, -1), "z_dim=-1")],
)
def test_trees_of_impossible_sizes(options: tuple[int, int], match: str) -> None:
    with pytest.raises(SearchError, match=match):
        Tree(*options)


@pytest.mark.parametrize(("horizon", "deadline"), [(0, None), (3, 2)])
def test_impossible_horizons(horizon: int, deadline: int | None) -> None:
    with pytest.raises(SearchError, match="horizon is at least 1"):
        Tree(4, 0).add_root([1], seed=0, horizon=horizon, deadline=deadline)


# A policy's view ------------------------------------------------------------------------------------------------------


def test_a_problem_asks_for_each_child_once_and_takes_actions_in_turn() -> None:
    tree = Tree(4, 0)
    root = tree.add_root([1], seed=0, horizon=2)
    problem = Problem(tree, root, actions=3)
    asked = problem.ask(root, 2) + problem.ask(root, 3)
    assert asked == [Request(root, i, i % 3) for i in range(5)]
    done = tree.add(root, 0, span(1), ended=True)
    assert problem.ask(done, 4) == []


def test_a_problem_sees_only_what_it_was_sent() -> None:
    tree = Tree(4, 0)
    root = tree.add_root([1], seed=0, horizon=2)
    nodes = [tree.add(root, i, span(ids)) for i, ids in enumerate((1, 2, 1, 1))]
    problem = Problem(tree, root)
    assert problem.children(root) == []
    problem.answer(nodes[:3])
    assert problem.children(root) == nodes[:3]
    assert problem.distinct(root) == nodes[:2]
    assert tree.multiplicity[nodes[0]] == 3


def test_randomness_of_a_policy_belongs_to_the_node() -> None:
    tree = Tree(4, 0)
    roots = [tree.add_root([1], seed=seed, horizon=2) for seed in (3, 4)]
    problem = Problem(tree, roots[0])
    first = problem.rng(roots[0], "choice").random()
    problem.rng(roots[1], "choice").random()
    assert problem.rng(roots[0], "choice").random() == first
    assert len({first, problem.rng(roots[1], "choice").random(), problem.rng(roots[0], "other").random()}) == 3


def test_a_menu_is_not_empty() -> None:
    tree = Tree(4, 0)
    root = tree.add_root([1], seed=0, horizon=4)
    with pytest.raises(SearchError, match="menu is empty"):
        Problem(tree, root, actions=0)
