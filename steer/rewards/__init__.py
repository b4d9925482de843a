"""Rewards: small, many, unpooled, and never the judge.

`Rewards(config, model).score(states)` gives a number per state and reward, `.combine` makes a value of them; see
`steer.rewards.combine` for what counts when, and `steer.rewards.registry` for the family.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from steer.lazy_exports import lazy_exports as _lazy_exports

if _TYPE_CHECKING:
    from steer.heads.preference import PreferenceHead as PreferenceHead
    from steer.heads.reach import ReachHead as ReachHead
    from steer.rewards.combine import Rewards as Rewards
    from steer.rewards.config import RewardsConfig as RewardsConfig
    from steer.rewards.config import RewardSpec as RewardSpec
    from steer.rewards.config import default_rewards as default_rewards
    from steer.rewards.config import load_rewards as load_rewards
    from steer.rewards.registry import REWARDS as REWARDS
    from steer.rewards.registry import Kind as Kind
    from steer.rewards.registry import Reward as Reward
    from steer.rewards.states import States as States

__all__, __dir__, __getattr__ = _lazy_exports(__name__)
