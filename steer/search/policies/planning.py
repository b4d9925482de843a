"""What policies share: spreading a budget over spans, sampled children as weighted candidates, decisions, options.

Two rules hold for every policy that commits span by span (`weave`, `mcts`, `gumbel`):

- With `left` nodes to write and `d` spans to go, `max(1, left // d)` are spent before the next span is decided. So what
  one span leaves unspent goes to the later ones, and the horizon is reached whenever there are as many nodes as spans.
- A complete node is a candidate for the result whether a policy decides for it or not. So policies decide between nodes
  that can still be gone on with, as long as there are any, and never spend anything on a complete one.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from steer.errors import SearchError
from steer.records import StrictRecord, describe_errors
from steer.search.fields import NONE, Status
from steer.search.problem import Problem
from steer.search.tree import Tree

NODES_PER_SPAN = 32  # planned with where the number of nodes is unlimited

Count = Annotated[int, Field(ge=1)]
Real = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PolicyConfig(StrictRecord):
    """Options of a policy. None, where a field has it, stands for a planned value. Abstract.

    Raises:
        SearchError: at construction: an option is unknown, of another type, or out of its range.
    """

    model_config = pydantic.ConfigDict(strict=True)

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except pydantic.ValidationError as error:
            raise SearchError(describe_errors(error, type(self), type(self).__name__)) from error


def total(problem: Problem) -> int:
    """Nodes to spend in all: the problem's, or `NODES_PER_SPAN` for each span of an unlimited one."""
    return problem.horizon * NODES_PER_SPAN if problem.nodes is None else problem.nodes


def share(problem: Problem, depth: int, left: int) -> int:
    """Nodes to spend before the span behind `depth` is decided, of `left`: at least 1 where any are left."""
    return min(left, max(1, left // (problem.horizon - depth)))


def is_last(problem: Problem, node: int) -> bool:
    """Whether every child of a node is complete, since it stands one span before the horizon."""
    return int(problem.tree.depth[node]) == problem.horizon - 1


def original(tree: Tree, node: int) -> int:
    """The earliest sibling with the same tokens: the node itself, or the one that it duplicates."""
    return node if tree.duplicate_of[node] == NONE else int(tree.duplicate_of[node])


def draws(problem: Problem, node: int) -> dict[int, int]:
    """Distinct children in the order of their first draw, with how often each was drawn.

    Children are samples of the model, so a child's share of the draws is the estimate of its prior probability (Hubert
    et al., 2021, "Learning and planning in complex action spaces").
    """
    counts: dict[int, int] = {}
    for child in problem.children(node):
        child = original(problem.tree, child)
        counts[child] = counts.get(child, 0) + 1
    return counts


def planned_temperature(values: Sequence[float] | NDArray[Any]) -> float:
    """Half the standard deviation of values, so that a policy need not know their scale; 0.2 where they do not differ.

    Half, since a result is judged by its best node: at a whole deviation searches spread too thin on values that can be
    trusted, below a quarter they follow the noise of those that cannot.
    """
    spread = float(np.std(np.asarray(values, dtype=np.float64))) if len(values) else 0.0
    return spread / 2 if spread > 1e-6 else 0.2


def unfinished(problem: Problem, nodes: Iterable[int]) -> list[int]:
    """Those of some nodes that can be gone on with."""
    return [node for node in nodes if not problem.tree.is_complete(node)]


def commit(problem: Problem, node: int, chosen: int) -> None:
    """Mark a child as decided for and its unfinished siblings as dropped."""
    for child in unfinished(problem, problem.distinct(node)):
        problem.tree.mark(child, Status.COMMITTED if child == chosen else Status.PRUNED)


def back_up(tree: Tree, children: Iterable[int]) -> None:
    """Count a visit for each new child; that of a duplicate goes to its original."""
    for child in children:
        tree.back_up(original(tree, child), float(tree.value[child]))
