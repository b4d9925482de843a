"""Search over spans: many continuations are looked at, the best is returned.

`write_searched(model, contexts, terminals=..., budget=Budget(tokens=...))` does it all. Below it stand, each usable
alone: a `Tree` of spans, `run_search` with the `POLICIES` that say what to look at next, a `World` that writes and
scores spans, and an `Engine` that computes them; `open_engine` chooses one.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from steer.search.driver import Budget as Budget
    from steer.search.driver import Outcome as Outcome
    from steer.search.driver import Spent as Spent
    from steer.search.driver import run_search as run_search
    from steer.search.engine import Draw as Draw
    from steer.search.engine import Engine as Engine
    from steer.search.engine import Order as Order
    from steer.search.fields import Status as Status
    from steer.search.opening import open_engine as open_engine
    from steer.search.policies import POLICIES as POLICIES
    from steer.search.policies import make_policy as make_policy
    from steer.search.problem import Problem as Problem
    from steer.search.problem import Request as Request
    from steer.search.saving import load_tree as load_tree
    from steer.search.saving import save_tree as save_tree
    from steer.search.spans import Action as Action
    from steer.search.spans import Aim as Aim
    from steer.search.spans import SpanWorld as SpanWorld
    from steer.search.tree import Tree as Tree
    from steer.search.world import World as World
    from steer.search.writing import GUIDED_MENU as GUIDED_MENU
    from steer.search.writing import UNGUIDED_MENU as UNGUIDED_MENU
    from steer.search.writing import SearchResult as SearchResult
    from steer.search.writing import write_searched as write_searched

_HOME = {
    "Action": "spans",
    "Aim": "spans",
    "Budget": "driver",
    "Draw": "engine",
    "Engine": "engine",
    "GUIDED_MENU": "writing",
    "Order": "engine",
    "Outcome": "driver",
    "POLICIES": "policies",
    "Problem": "problem",
    "Request": "problem",
    "SearchResult": "writing",
    "SpanWorld": "spans",
    "Spent": "driver",
    "Status": "fields",
    "Tree": "tree",
    "UNGUIDED_MENU": "writing",
    "World": "world",
    "load_tree": "saving",
    "make_policy": "policies",
    "open_engine": "opening",
    "run_search": "driver",
    "save_tree": "saving",
    "write_searched": "writing",
}

__all__ = [
    "GUIDED_MENU",
    "POLICIES",
    "UNGUIDED_MENU",
    "Action",
    "Aim",
    "Budget",
    "Draw",
    "Engine",
    "Order",
    "Outcome",
    "Problem",
    "Request",
    "SearchResult",
    "SpanWorld",
    "Spent",
    "Status",
    "Tree",
    "World",
    "load_tree",
    "make_policy",
    "open_engine",
    "run_search",
    "save_tree",
    "write_searched",
]


def __getattr__(name: str) -> _Any:
    """Import an exported name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'steer.search' has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"steer.search.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
