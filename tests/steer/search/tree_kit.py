"""Trees made by hand, for tests of whatever reads trees."""

from collections.abc import Callable, Sequence

import numpy as np

from steer.search.fields import Status
from steer.search.tree import Tree

COMPONENTS = ("similarity", "fluency")
SPAN, Z_DIM = 4, 3


def letters(ids: Sequence[int]) -> str:
    """Token ids as bytes of Latin-1: a `to_text` without a model."""
    return bytes(ids).decode("latin-1")


def below(tree: Tree, node: int) -> list[int]:
    """All descendants, parents before their children."""
    found = list(tree.children(node))
    for child in found:
        found += tree.children(child)
    return found


def small_tree(to_ids: Callable[[bytes], Sequence[int]] = tuple) -> Tree:
    """Two roots, every status, a duplicate, an ended span that is short; `to_ids` gives a token for each byte.

    ```
    0 (horizon 2)  2 .5 committed   4 .9 complete committed, 5 .9 its duplicate, 6 .2 ended after 2 tokens
                   3 .1 pruned
    1 (horizon 3)  7 .3
    ```
    """
    tree = Tree(SPAN, Z_DIM, COMPONENTS, capacity=2)  # grows while it is filled
    tree.add_root(to_ids(b"Once"), seed=2**62 + 1, horizon=2)
    tree.add_root((), seed=7, horizon=3, deadline=4)
    rng = np.random.default_rng(0)

    def add(parent: int, index: int, text: bytes, value: float, *, ended: bool = False) -> int:
        components = np.array([value, -1.5], np.float32)
        latents = rng.standard_normal((2, Z_DIM)).astype(np.float32)
        node = tree.add(
            parent,
            index,
            to_ids(text),
            action=index % 2,
            ended=ended,
            value=value,
            logprob=-value,
            written_from=latents[0],
            latent=latents[1],
            components=components,
        )
        tree.back_up(node, value)
        return node

    add(0, 0, b" a w", 0.5)
    add(0, 1, b" the", 0.1)
    add(2, 0, b"olf.", 0.9)
    add(2, 1, b"olf.", 0.9)
    add(2, 2, b"!\xff", 0.2, ended=True)
    add(1, 0, b"Then", 0.3)
    for node in (2, 4):
        tree.mark(node, Status.COMMITTED)
    tree.mark(3, Status.PRUNED)
    return tree


def wide_tree(children: int, depth: int, *, horizon: int | None = None) -> Tree:
    """One root, with so many children of every node down to a depth; values grow with the ids."""
    tree = Tree(2, 0, (), capacity=1)
    level = [tree.add_root((0,), seed=1, horizon=horizon or depth)]
    for _ in range(depth):
        level = [
            tree.add(parent, i, (tree.size % 251, i % 251), value=float(tree.size))
            for parent in level
            for i in range(children)
        ]
    return tree
