"""Whether the links of a tree that comes from elsewhere fit together."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from steer.errors import SearchError
from steer.search.fields import NONE

LINKS = ("parent", "root", "depth", "n_children", "first_child", "last_child", "next_sibling", "n_tokens", "twin")


def check_links(arrays: Mapping[str, NDArray[np.int32]], span_tokens: int) -> None:
    """Compare what can be told from the parents alone with what the tree has noted.

    Args:
        arrays: those of `LINKS`, `[N]` each, as `steer.search.tree.Tree` describes them.
        span_tokens: S.

    Raises:
        SearchError: parents, roots, depths, children or span lengths do not fit; walking such a tree might never end.
    """
    size = len(arrays["parent"])
    nodes = np.arange(size)
    if (arrays["parent"] >= nodes).any() or (arrays["parent"] < NONE).any():
        raise SearchError("a node of the tree comes before its parent; the file is damaged")
    is_root = arrays["parent"] == NONE
    above = np.where(is_root, 0, arrays["parent"])
    # Children stand in the order of their ids: so they were added.
    first, last, following = (np.full(size, NONE) for _ in range(3))
    for node in nodes[~is_root].tolist():
        parent = int(above[node])
        if last[parent] == NONE:
            first[parent] = node
        else:
            following[last[parent]] = node
        last[parent] = node
    wanted = {
        "root": np.where(is_root, nodes, arrays["root"][above]),
        "depth": np.where(is_root, 0, arrays["depth"][above] + 1),
        "n_children": np.bincount(above[~is_root], minlength=size),
        "first_child": first,
        "last_child": last,
        "next_sibling": following,
    }
    for name, array in wanted.items():
        if (wrong := np.flatnonzero(arrays[name] != array)).size:
            node = int(wrong[0])
            raise SearchError(
                f"{name} of node {node} is {arrays[name][node]}, expected {array[node]}: the tree is damaged"
            )
    if ((arrays["n_tokens"] < 0) | (arrays["n_tokens"] > span_tokens)).any() or (arrays["twin"] >= nodes).any():
        raise SearchError("a span of the tree is longer than its tokens, or a twin comes later: the tree is damaged")
