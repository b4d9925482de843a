"""Search over spans: many continuations are looked at, the best is returned.

`write_searched(model, contexts, terminals=..., budget=Budget(tokens=...))` does it all. Below it stand, each usable
alone: a `Tree` of spans, `run_search` with the `POLICIES` that say what to look at next, a `World` that writes and
scores spans, and an `Engine` that computes them; `open_engine` chooses one.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from steer.search.action import Action as Action
    from steer.search.action import Aim as Aim
    from steer.search.budget import Budget as Budget
    from steer.search.budget import Outcome as Outcome
    from steer.search.budget import Spent as Spent
    from steer.search.config import UNGUIDED_MENU as UNGUIDED_MENU
    from steer.search.config import SearchConfig as SearchConfig
    from steer.search.config import guided_menu as guided_menu
    from steer.search.driver import run_search as run_search
    from steer.search.engines.base import Draw as Draw
    from steer.search.engines.base import Engine as Engine
    from steer.search.engines.base import Order as Order
    from steer.search.engines.opening import open_engine as open_engine
    from steer.search.environment import Request as Request
    from steer.search.environment import World as World
    from steer.search.fields import Status as Status
    from steer.search.policies import POLICIES as POLICIES
    from steer.search.policies import make_policy as make_policy
    from steer.search.problem import Problem as Problem
    from steer.search.searched import SearchResult as SearchResult
    from steer.search.searched import write_searched as write_searched
    from steer.search.span_environment import SpanWorld as SpanWorld
    from steer.search.tree import Tree as Tree
    from steer.search.tree_file import load_tree as load_tree
    from steer.search.tree_file import save_tree as save_tree

_HOME = {
    "Action": "steer.search.action",
    "Aim": "steer.search.action",
    "Budget": "steer.search.budget",
    "Draw": "steer.search.engines.base",
    "Engine": "steer.search.engines.base",
    "guided_menu": "steer.search.config",
    "Order": "steer.search.engines.base",
    "Outcome": "steer.search.budget",
    "POLICIES": "steer.search.policies",
    "Problem": "steer.search.problem",
    "Request": "steer.search.environment",
    "SearchConfig": "steer.search.config",
    "SearchResult": "steer.search.searched",
    "SpanWorld": "steer.search.span_environment",
    "Spent": "steer.search.budget",
    "Status": "steer.search.fields",
    "Tree": "steer.search.tree",
    "UNGUIDED_MENU": "steer.search.config",
    "World": "steer.search.environment",
    "load_tree": "steer.search.tree_file",
    "make_policy": "steer.search.policies",
    "open_engine": "steer.search.engines.opening",
    "run_search": "steer.search.driver",
    "save_tree": "steer.search.tree_file",
    "write_searched": "steer.search.searched",
}

__all__ = [
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
    "SearchConfig",
    "SearchResult",
    "SpanWorld",
    "Spent",
    "Status",
    "Tree",
    "World",
    "guided_menu",
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
    value = getattr(_importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
