"""Rewards: small, many, unpooled, and never the judge.

`Rewards(config, model).score(states)` gives a number per state and reward, `.combine` makes a value of them; see
`steer.rewards.combine` for what counts when, and `steer.rewards.registry` for the family.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from steer.rewards.combine import Rewards
from steer.rewards.config import RewardsConfig, RewardSpec, default_rewards, load_rewards
from steer.rewards.registry import REWARDS, Kind, Reward
from steer.rewards.states import States

if _TYPE_CHECKING:
    from steer.heads.preference import PreferenceHead as PreferenceHead
    from steer.heads.reach import ReachHead as ReachHead

_HEADS = {"PreferenceHead": "steer.heads.preference", "ReachHead": "steer.heads.reach"}

__all__ = [
    "REWARDS",
    "Kind",
    "PreferenceHead",
    "ReachHead",
    "Reward",
    "RewardSpec",
    "Rewards",
    "RewardsConfig",
    "States",
    "default_rewards",
    "load_rewards",
]


def __getattr__(name: str) -> _Any:
    """Import a head from its module on first use."""
    if name not in _HEADS:
        raise AttributeError(f"module 'steer.rewards' has no attribute {name!r}")
    value = getattr(_importlib.import_module(_HEADS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
