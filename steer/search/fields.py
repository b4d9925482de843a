"""What a search tree notes of each node: the arrays by name, and the bits of a node's status."""

from enum import IntFlag
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

NONE = -1


class Status(IntFlag):
    """Bits of a tree's array `status`."""

    ENDED = 1  # the story ended in this span
    COMPLETE = 2  # a finished candidate: the story ended, or the horizon is reached
    COMMITTED = 4  # the policy decided for it
    PRUNED = 8  # the policy dropped it
    DUPLICATE = 16  # the same tokens as an earlier sibling, whose `multiplicity` counts it


class Columns:
    """The arrays of a tree, a row per node, N in use; see `steer.search.tree.Tree`. Abstract."""

    size: int
    span_tokens: int
    parent: NDArray[np.int32]
    root: NDArray[np.int32]
    depth: NDArray[np.int32]
    index: NDArray[np.int32]
    action: NDArray[np.int32]
    key: NDArray[np.int64]
    status: NDArray[np.int32]
    n_tokens: NDArray[np.int32]
    tokens: NDArray[np.int32]
    logprob: NDArray[np.float32]
    written_from: NDArray[np.float32]
    latent: NDArray[np.float32]
    draft: NDArray[np.float32]
    has_draft: NDArray[np.bool_]
    components: NDArray[np.float32]
    value: NDArray[np.float32]
    duplicate_of: NDArray[np.int32]
    multiplicity: NDArray[np.int32]
    first_child: NDArray[np.int32]
    last_child: NDArray[np.int32]
    next_sibling: NDArray[np.int32]
    n_children: NDArray[np.int32]
    visits: NDArray[np.int32]
    inflight: NDArray[np.int32]
    total: NDArray[np.float64]
    logit: NDArray[np.float32]
    gumbel: NDArray[np.float32]
    phi: NDArray[np.float32]


_WIDE = {"tokens": "S", "written_from": "z", "latent": "z", "draft": "z", "components": "C"}
_EMPTY = dict.fromkeys(
    ("parent", "root", "index", "action", "duplicate_of", "first_child", "last_child", "next_sibling"), NONE
)
# name -> dtype, width ("" one number per node, "S" tokens of a span, "z" a latent, "C" reward components), empty value
FIELDS: dict[str, tuple[Any, str, float]] = {
    name: (get_args(get_args(kind)[1])[0], _WIDE.get(name, ""), {**_EMPTY, "multiplicity": 1}.get(name, 0))
    for name, kind in get_type_hints(Columns).items()
    if get_args(kind)
}
STATISTICS = ("visits", "inflight", "total", "logit", "gumbel", "phi")  # what policies keep
