"""Whether the links of a tree that comes from elsewhere fit together."""

import numpy as np

from steer.errors import SearchError
from steer.search.fields import NONE, Columns


def check_links(tree: Columns) -> None:
    """Compare what can be told from the parents alone with what the tree has noted.

    Raises:
        SearchError: parents, roots, depths, children or span lengths do not fit; walking such a tree might never end.
    """
    nodes = np.arange(tree.size)
    if (tree.parent >= nodes).any() or (tree.parent < NONE).any():
        raise SearchError("a node of the tree comes before its parent; the file is damaged")
    is_root = tree.parent == NONE
    above = np.where(is_root, 0, tree.parent)
    # Children stand in the order of their ids: so they were added.
    first, last, following = (np.full(tree.size, NONE) for _ in range(3))
    for node in nodes[~is_root].tolist():
        parent = int(above[node])
        if last[parent] == NONE:
            first[parent] = node
        else:
            following[last[parent]] = node
        last[parent] = node
    wanted = {
        "root": np.where(is_root, nodes, tree.root[above]),
        "depth": np.where(is_root, 0, tree.depth[above] + 1),
        "n_children": np.bincount(above[~is_root], minlength=tree.size),
        "first_child": first,
        "last_child": last,
        "next_sibling": following,
    }
    for name, array in wanted.items():
        if (wrong := np.flatnonzero(getattr(tree, name) != array)).size:
            node = int(wrong[0])
            raise SearchError(
                f"{name} of node {node} is {getattr(tree, name)[node]}, expected {array[node]}: the tree is damaged"
            )
    if ((tree.n_tokens < 0) | (tree.n_tokens > tree.span_tokens)).any() or (tree.duplicate_of >= nodes).any():
        raise SearchError(
            "a span of the tree is longer than its tokens, or a duplicate comes later: the tree is damaged"
        )
