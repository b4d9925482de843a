"""What a search tree notes of each node: the arrays by name, and the bits of a node's status."""

from enum import IntFlag
from typing import Any

import numpy as np

NONE = -1


class Status(IntFlag):
    """Bits of a tree's array `status`."""

    ENDED = 1  # the story ended in this span
    COMPLETE = 2  # a finished candidate: the story ended, or the horizon is reached
    COMMITTED = 4  # the policy decided for it
    PRUNED = 8  # the policy dropped it
    DUPLICATE = 16  # the same tokens as an earlier sibling, whose `multiplicity` counts it


# name -> dtype, width ("" one number per node, "S" tokens of a span, "z" a latent, "C" reward components), empty value
FIELDS: dict[str, tuple[Any, str, float]] = {
    "parent": (np.int32, "", NONE),
    "root": (np.int32, "", NONE),
    "depth": (np.int32, "", 0),
    "index": (np.int32, "", NONE),
    "action": (np.int32, "", NONE),
    "key": (np.int64, "", 0),
    "status": (np.int32, "", 0),
    "n_tokens": (np.int32, "", 0),
    "tokens": (np.int32, "S", 0),
    "logprob": (np.float32, "", 0),
    "written_from": (np.float32, "z", 0),
    "latent": (np.float32, "z", 0),
    "draft": (np.float32, "z", 0),
    "has_draft": (np.bool_, "", 0),
    "components": (np.float32, "C", 0),
    "value": (np.float32, "", 0),
    "duplicate_of": (np.int32, "", NONE),
    "multiplicity": (np.int32, "", 1),
    "first_child": (np.int32, "", NONE),
    "last_child": (np.int32, "", NONE),
    "next_sibling": (np.int32, "", NONE),
    "n_children": (np.int32, "", 0),
    "visits": (np.int32, "", 0),
    "inflight": (np.int32, "", 0),
    "total": (np.float64, "", 0),
    "logit": (np.float32, "", 0),
    "gumbel": (np.float32, "", 0),
    "phi": (np.float32, "", 0),
}
STATISTICS = ("visits", "inflight", "total", "logit", "gumbel", "phi")  # what policies keep
