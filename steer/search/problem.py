"""What a policy sees: one root of a tree, the children that it asked for so far, and how to ask for more.

A policy is a generator: it yields lists of `Request`s and is sent the ids of the children that were written. It never
calls a model, so many problems can be searched side by side in the same batches, a budget can cut it off anywhere, and
a saved search goes on by running the policy again over the nodes that are there.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, final

import numpy as np

from steer.errors import SearchError
from steer.noise import derive_seed
from steer.search.environment import Request
from steer.search.fields import Status
from steer.search.tree import Tree

Steps = Generator[list[Request], list[int], None]
Policy = Callable[["Problem", Any], Steps]


@final
class Problem:
    """One root of a tree as a policy sees it.

    Args:
        tree: holds the values; a policy may write its own statistics and the bits COMMITTED and PRUNED.
        root: id of the root.
        nodes: how many nodes may be written in all, for policies that plan ahead; None where only time is limited.
        actions: length of the menu; child `index` of any node takes action `index % actions`.
    """

    def __init__(self, tree: Tree, root: int, *, nodes: int | None = None, actions: int = 1) -> None:
        if actions < 1:
            raise SearchError("the menu is empty; expected at least one action")
        self.tree, self.root = tree, root
        self.nodes, self.actions = nodes, actions
        self.horizon = tree.horizon(root)
        self._asked: dict[int, int] = {}
        self._answered: dict[int, list[int]] = {}

    def ask(self, parent: int, count: int = 1) -> list[Request]:
        """Requests for the next `count` children of a node, none of a complete one."""
        if self.tree.is_complete(parent):
            return []
        first = self._asked.get(parent, 0)
        self._asked[parent] = first + count
        return [Request(parent, i, i % self.actions) for i in range(first, first + count)]

    def answer(self, nodes: Sequence[int]) -> None:
        """Called by the driver with the children that were written, before the policy is sent them."""
        for node in nodes:
            self._answered.setdefault(int(self.tree.parent[node]), []).append(node)

    def children(self, node: int) -> list[int]:
        """The children that this policy has been sent, in order, duplicates included.

        Not `tree.children`: when a saved search goes on, the tree holds nodes that the policy has yet to ask for.
        """
        return self._answered.get(node, [])

    def distinct(self, node: int) -> list[int]:
        """`children` without those that repeat an earlier sibling's tokens."""
        return [child for child in self.children(node) if not self.tree.has(child, Status.DUPLICATE)]

    def rng(self, node: int, *parts: int | str) -> np.random.Generator:
        """Randomness of a policy at a node: the same whenever and in whatever order it is asked for."""
        return np.random.default_rng(derive_seed(int(self.tree.key[node]), "policy", *parts))
