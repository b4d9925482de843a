"""Running a policy on many roots side by side: their requests go into common batches, each under its own budget."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from steer.errors import SearchError
from steer.search.budget import Budget, Outcome
from steer.search.environment import Environment, Request
from steer.search.problem import Policy, Problem, Steps
from steer.search.tree import Tree


@dataclass
class _Active:
    problem: Problem
    steps: Steps
    outcome: Outcome
    wanted: list[Request]
    drafted: set[int] = field(default_factory=set)


def run_search(
    world: Environment,
    tree: Tree,
    roots: Sequence[int],
    policy: Policy,
    config: Any,
    budget: Budget,
    *,
    actions: int = 1,
    rows: int = 256,
    on_round: Callable[[list[Outcome], int], None] | None = None,
) -> list[Outcome]:
    """Run a policy on each root until it is done or its budget is.

    A request for a node that is in the tree already is charged, but answered from the tree at once. So a search that
    was saved goes on: the policy runs again over the nodes that are there, comes to where it stopped, and ends where
    one run under the same budget would have ended.

    Ctrl-C ends the run as a budget does: `interrupted`.

    Args:
        world: writes nodes.
        tree: holds the roots; nodes are added to it.
        roots: of this run.
        policy, config: see `steer.search.policies`.
        budget: per root.
        actions: length of the menu.
        rows: spans written in one batch, at most.
        on_round: called after each batch with all outcomes (those that go on have status `finished` too) and the number
            of roots that are still being searched.

    Returns:
        One `Outcome` per root, in order.

    Raises:
        SearchError: a saved tree was made with another menu, or `rows` is below 1.
    """
    if rows < 1:
        raise SearchError(f"a batch has at least 1 row; got rows={rows}")
    began = time.monotonic()
    tree.reset_statistics()
    outcomes = [Outcome(root) for root in roots]
    active: list[_Active] = []
    for outcome in outcomes:
        planned = _plan(world, tree, tree.horizon(outcome.root), budget, config)
        problem = Problem(tree, outcome.root, nodes=planned, actions=actions)
        steps = policy(problem, config)
        state = _Active(problem, steps, outcome, [])
        if _advance(state, None):
            active.append(state)
    try:
        while active:
            _round(world, tree, active, budget, rows, began, on_round, outcomes)
            going = []
            for state in active:
                if state.outcome.status == "finished" and _advance(state, tree):
                    going.append(state)
                else:
                    state.steps.close()
                    state.outcome.spent.seconds = time.monotonic() - began
            active = going
    except KeyboardInterrupt:
        for state in active:
            state.outcome.status = "interrupted"
    finally:
        for state in active:
            state.steps.close()
            state.outcome.spent.seconds = time.monotonic() - began
    for outcome in outcomes:
        if outcome.status == "finished" and tree.best(outcome.root) is None:
            outcome.status = "short"
    return outcomes


def _plan(world: Environment, tree: Tree, horizon: int, budget: Budget, config: Any) -> int | None:
    """How many nodes a budget is good for, drafts counted; None where only time is limited.

    A draft serves all children of its node, so it depends on how many a policy asks for at once.
    """
    limits = [] if budget.nodes is None else [budget.nodes]
    if budget.tokens is not None:
        alone = budget.tokens / world.node_tokens(tree, 1.0)
        fanout = min(float(getattr(config, "fanout", 1.0)), max(1.0, alone / horizon))
        limits.append(int(budget.tokens / world.node_tokens(tree, fanout)))
    return min(limits, default=None)


def _advance(state: _Active, tree: Tree | None) -> bool:
    """Send a policy the answers to what it wanted, and take its next requests; False when it is done."""
    try:
        if tree is None:
            state.wanted = next(state.steps)
        else:
            answers = [_found(tree, request) for request in state.wanted]
            state.problem.answer(answers)
            state.wanted = state.steps.send(answers)
    except StopIteration:
        return False
    return True


def _round(
    world: Environment,
    tree: Tree,
    active: list[_Active],
    budget: Budget,
    rows: int,
    began: float,
    on_round: Callable[[list[Outcome], int], None] | None,
    outcomes: list[Outcome],
) -> None:
    """Write what all policies want, as far as the budgets go; sets the status of those that are cut off."""
    todo: list[tuple[_Active, Request, int]] = []
    for state in active:
        for request, cost in _affordable(world, tree, state, budget):
            if tree.child(request.parent, request.index) is None:
                todo.append((state, request, cost))
            else:
                _charge(state, cost)
    # Siblings side by side: they share their prefix.
    todo.sort(key=lambda item: (item[1].parent, item[1].index))

    def late() -> bool:
        return budget.seconds is not None and time.monotonic() - began >= budget.seconds

    for at in range(0, len(todo), rows):
        if late():
            break
        world.expand(tree, [request for _, request, _ in todo[at : at + rows]])
        for state, _, cost in todo[at : at + rows]:
            _charge(state, cost)
        if on_round is not None:
            on_round(outcomes, len(active))
    if late():
        for state in active:
            if state.outcome.status == "finished":
                state.outcome.status = "out_of_time"


def _charge(state: _Active, cost: int) -> None:
    state.outcome.spent.tokens += cost
    state.outcome.spent.nodes += 1


def _affordable(world: Environment, tree: Tree, state: _Active, budget: Budget) -> list[tuple[Request, int]]:
    """The requests that a policy's budget allows, in order, with their costs; sets the status if there are more."""
    spent, taken = state.outcome.spent, []
    tokens, nodes = spent.tokens, spent.nodes
    for request, cost in zip(state.wanted, world.costs(tree, state.wanted, state.drafted), strict=True):
        child = tree.child(request.parent, request.index)
        if child is not None and int(tree.action[child]) != request.action:
            raise SearchError(
                f"node {child} of the saved tree was written by action {int(tree.action[child])} of its menu, the "
                f"policy asks for {request.action}; go on with the menu of the search that was saved"
            )
        if budget.nodes is not None and nodes + 1 > budget.nodes:
            state.outcome.status = "out_of_nodes"
            break
        if budget.tokens is not None and tokens + cost > budget.tokens:
            state.outcome.status = "out_of_tokens"
            break
        tokens, nodes = tokens + cost, nodes + 1
        taken.append((request, cost))
    return taken


def _found(tree: Tree, request: Request) -> int:
    child = tree.child(request.parent, request.index)
    assert child is not None, "the world did not add what it was asked for"
    return child
