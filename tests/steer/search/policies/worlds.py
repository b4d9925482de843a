"""Small worlds whose values are known, and short ways to search them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from steer.noise import child_key
from steer.search.budget import Budget, Outcome
from steer.search.driver import run_search
from steer.search.environment import Environment, Request
from steer.search.policies import make_policy
from steer.search.tree import Tree

SPAN = 2
Path = tuple[int, ...]


class Scripted(Environment):
    """Values, ends and tokens are functions of the indices on the path from the root."""

    def __init__(
        self,
        value: Callable[[Path], float],
        *,
        ends: Callable[[Path], bool] = lambda path: False,
        token: Callable[[Path], int] = lambda path: path[-1],
    ) -> None:
        self.value, self.ends, self.token = value, ends, token
        self.batches: list[list[Request]] = []

    def costs(self, tree: Tree, requests: Sequence[Request], drafted: set[int]) -> list[int]:
        return [SPAN] * len(requests)

    def expand(self, tree: Tree, requests: Sequence[Request]) -> list[int]:
        self.batches.append(list(requests))
        return [self._add(tree, request) for request in requests]

    def _add(self, tree: Tree, request: Request) -> int:
        path = (*path_of(tree, request.parent), request.index)
        return tree.add(
            request.parent,
            request.index,
            [self.token(path)] * SPAN,
            action=request.action,
            ended=self.ends(path),
            value=self.value(path),
        )


class Walk(Environment):
    """A random walk: the value of a complete node is where it came to, of any other that with noise.

    Increments and noise follow from the node's key, so every seed is another world.
    """

    def __init__(self, noise: float, ends: float = 0.0) -> None:
        self.noise, self.ends = noise, ends
        self.at: dict[int, float] = {}

    def costs(self, tree: Tree, requests: Sequence[Request], drafted: set[int]) -> list[int]:
        return [SPAN] * len(requests)

    def expand(self, tree: Tree, requests: Sequence[Request]) -> list[int]:
        return [self._add(tree, request) for request in requests]

    def _add(self, tree: Tree, request: Request) -> int:
        key = child_key(int(tree.key[request.parent]), request.index)
        rng = np.random.default_rng(key)
        step, noise = rng.normal(size=2)
        at = self.at.get(int(tree.key[request.parent]), 0.0) + step
        self.at[key] = at
        ended = bool(rng.random() < self.ends)
        final = ended or tree.depth[request.parent] + 1 == tree.horizon(request.parent)
        tokens = rng.integers(0, 1000, SPAN).tolist()
        value = at if final else at + self.noise * noise
        return tree.add(request.parent, request.index, tokens, action=request.action, ended=ended, value=value)


def path_of(tree: Tree, node: int) -> Path:
    """Indices from the root to a node."""
    return tuple(int(tree.index[n]) for n in tree.path(node))


def at(tree: Tree, *path: int) -> int:
    """The node at the end of a path of indices from the first root."""
    node = tree.roots[0]
    for index in path:
        child = tree.child(node, index)
        assert child is not None, f"no node at {path}"
        node = child
    return node


def search(
    world: Environment,
    policy: str,
    *,
    nodes: int | None,
    horizon: int,
    seeds: Sequence[int] = (0,),
    actions: int = 1,
    tree: Tree | None = None,
    **options: Any,
) -> tuple[Tree, list[Outcome]]:
    """Search from one root per seed; with a tree, search that one again."""
    if tree is None:
        tree = Tree(SPAN, 0, capacity=4)
        for seed in seeds:
            tree.add_root([1], seed=seed, horizon=horizon)
    budget = Budget(nodes=nodes, seconds=None if nodes is not None else 60.0)
    return tree, run_search(world, tree, tree.roots, *make_policy(policy, options), budget, actions=actions)


def best_value(tree: Tree, root: int) -> float:
    """The value of the result."""
    best = tree.best(root)
    assert best is not None
    return float(tree.value[best])
