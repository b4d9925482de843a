"""Which rewards count, when and how much: a mapping that people write in YAML.

```yaml
similarity: 1.0                     # a name and its weight
similarity_now: {reward: similarity, at: potential}    # the same once more, under another name
repetition: {weight: -0.5, options: {n: 5}}
```
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from pydantic_core import PydanticCustomError

from steer.errors import RewardError
from steer.records import StrictRecord, describe_errors, unknown_keys
from steer.rewards.registry import REWARDS, Kind
from steer.rewards.states import Options
from steer.yaml_file import read_yaml


class RewardSpec(StrictRecord):
    """One reward, as it counts.

    Attributes:
        reward: a name in `REWARDS`.
        weight: factor in the value, by default the reward's own; negative where less is better. With 0 it is reported
            and does not count.
        at: `step` (mean over the path), `end` (of final nodes) or `potential` (of all other nodes); by default the
            reward's own.
        options: of the reward, checked against its own record.
    """

    reward: str
    weight: float = pydantic.Field(allow_inf_nan=False)
    at: Kind
    options: pydantic.SerializeAsAny[Options]

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Defaults of the reward."""
        if not isinstance(data, Mapping):
            return data
        name = data.get("reward")
        entry = REWARDS.get(name) if isinstance(name, str) else None
        if entry is None:
            raise PydanticCustomError(
                "unknown_reward",
                "unknown reward {name}; expected one of {known} (to use one under another name, give it as `reward`)",
                {"name": repr(name), "known": ", ".join(REWARDS)},
            )
        return {"weight": entry.weight, "at": entry.at, "options": None, **data}

    @pydantic.field_validator("options", mode="before")
    @classmethod
    def _own_record(cls, options: Any, info: pydantic.ValidationInfo) -> Any:
        """Options as the reward's own record."""
        record = REWARDS[info.data["reward"]].options
        if isinstance(options, Mapping) and (error := unknown_keys(options, record.model_fields, "option")):
            raise error
        return options if isinstance(options, record) else record.model_validate({} if options is None else options)


class RewardsConfig(pydantic.RootModel[dict[str, RewardSpec]]):
    """Rewards by the names under which they are reported, in order.

    A value is a weight, a mapping with the fields of `RewardSpec`, or nothing for all defaults; `reward` may be left
    out where the name is a reward's.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _written_short(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {name: _spelled_out(name, value) for name, value in data.items()}

    @pydantic.field_validator("root")
    @classmethod
    def _not_empty(cls, root: dict[str, RewardSpec]) -> dict[str, RewardSpec]:
        if not root:
            raise ValueError("there are no rewards; name at least one")
        return root


def load_rewards(source: str | Path | Mapping[str, Any]) -> RewardsConfig:
    """Read and check rewards.

    Args:
        source: path of a YAML file, or what would stand in it.

    Raises:
        RewardError: it is no YAML mapping, a key stands twice, or keys or values are wrong; each problem is named with
            its key.
        TextError: the file is missing, unreadable, or not UTF-8.
    """
    if isinstance(source, Mapping):
        try:
            return RewardsConfig.model_validate(source)
        except pydantic.ValidationError as error:
            raise RewardError(describe_errors(error, RewardsConfig, "rewards")) from error
    file = read_yaml(source, "rewards file", expected="rewards, such as `similarity: 1.0`", error=RewardError)
    with file.checked(RewardsConfig):
        return RewardsConfig.model_validate(file.data)


def default_rewards(has_terminal: bool, has_reach: bool, has_avoid: bool = False) -> RewardsConfig:
    """Rewards for those who name none.

    The end counts by its similarity to the terminal. Before the end the reach head says how likely the terminal still
    is; without one, similarity so far stands in. Fluency and repetition keep the way there readable.

    Args:
        has_terminal: whether an end is wished for.
        has_reach: whether the model has a reach head.
        has_avoid: whether something is to be avoided.
    """
    rewards: dict[str, Any] = {}
    if has_terminal:
        rewards["similarity"] = None
        if has_reach:
            rewards["reach"] = None
        else:
            rewards["similarity_now"] = {"reward": "similarity", "at": "potential"}
    if has_avoid:
        rewards["avoid"] = None
    return RewardsConfig.model_validate({**rewards, "fluency": None, "repetition": None})


def _spelled_out(name: Any, value: Any) -> Any:
    if value is None:
        return {"reward": name}
    if isinstance(value, Mapping):
        return {"reward": name, **value}
    if isinstance(value, RewardSpec):
        return value
    return {"reward": name, "weight": value}
