"""Search over spans: many continuations are looked at, the best is returned.

`write_searched(model, contexts, terminals=..., budget=Budget(tokens=...))` does it all. Below it stand, each usable
alone: a `Tree` of spans, `run_search` with the `POLICIES` that say what to look at next, an `Environment` that writes
and scores spans, and an `Engine` that computes them; `open_engine` chooses one.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from steer.lazy_exports import lazy_exports as _lazy_exports

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
    from steer.search.engines.base import Engine as Engine
    from steer.search.engines.base import SpanRequest as SpanRequest
    from steer.search.engines.base import SpanSample as SpanSample
    from steer.search.engines.opening import open_engine as open_engine
    from steer.search.environment import Environment as Environment
    from steer.search.environment import Request as Request
    from steer.search.fields import Status as Status
    from steer.search.policies import POLICIES as POLICIES
    from steer.search.policies import make_policy as make_policy
    from steer.search.problem import Problem as Problem
    from steer.search.searched import SearchResult as SearchResult
    from steer.search.searched import write_searched as write_searched
    from steer.search.span_environment import SpanEnvironment as SpanEnvironment
    from steer.search.tree import Tree as Tree
    from steer.search.tree_file import load_tree as load_tree
    from steer.search.tree_file import save_tree as save_tree

__all__, __dir__, __getattr__ = _lazy_exports(__name__)
