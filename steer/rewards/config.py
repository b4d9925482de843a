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
import yaml
from pydantic_core import PydanticCustomError

from steer.errors import RewardError
from steer.rewards.options import Options
from steer.rewards.registry import REWARDS, Kind
from steer.text import read_text


class RewardSpec(pydantic.BaseModel):
    """One reward, as it counts.

    Attributes:
        reward: a name in `REWARDS`.
        weight: factor in the value, by default the reward's own; negative where less is better. With 0 it is reported
            and does not count.
        at: `step` (mean over the path), `end` (of final nodes) or `potential` (of all other nodes); by default the
            reward's own.
        options: of the reward, checked against its own record.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    reward: str
    weight: float = pydantic.Field(allow_inf_nan=False)
    at: Kind
    options: pydantic.SerializeAsAny[Options]

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Defaults of the reward, and its options as its own record."""
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
        if isinstance(data.get("weight"), bool):
            raise PydanticCustomError("weight", "a weight is a number; got a truth value", {"place": "weight"})
        return {"weight": entry.weight, "at": entry.at, **data, "options": _options(entry.options, data.get("options"))}


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
    where = "rewards" if isinstance(source, Mapping) else str(source)
    data = source if isinstance(source, Mapping) else _read_yaml(Path(source))
    if not isinstance(data, Mapping):
        raise RewardError(f"{where}: expected a mapping of rewards, such as `similarity: 1.0`; got {data!r:.60}")
    try:
        return RewardsConfig.model_validate(data)
    except pydantic.ValidationError as error:
        raise RewardError("\n".join(f"{where}: {line}" for line in _lines(error))) from error


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


def _options(record: type[Options], value: Any) -> Options:
    """Options as the reward's own record; what is wrong with one of them is said of that one."""
    if isinstance(value, record):
        return value
    try:
        return record.model_validate({} if value is None else value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        problem = _message(first)
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            problem = f"unknown option; expected {' or '.join(record.model_fields) or 'none'}"
        place = ".".join(map(str, ("options", *first["loc"])))
        raise PydanticCustomError("options", "{problem}", {"problem": problem, "place": place}) from error


def _message(item: Any) -> str:
    """What pydantic says, and what it says it about."""
    if item["type"] == "extra_forbidden":
        return "unknown key" + (f"; expected {', '.join(RewardSpec.model_fields)}" if len(item["loc"]) == 2 else "")
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], str | int | float | None) and item["type"] not in ("missing", "options"):
        message += f" (got {item['input']!r:.80})"
    return message


def _lines(error: pydantic.ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        place = item.get("ctx", {}).get("place")
        loc = [*map(str, item["loc"]), *([place] if place else [])]
        lines.append(f"{'.'.join(loc)}: {_message(item)}" if loc else _message(item))
    return lines


def _read_yaml(path: Path) -> Any:
    text = read_text(path, "rewards file")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        _refuse_twins(node, path)
        return yaml.SafeLoader("").construct_document(node)
    except RewardError:
        raise
    # An impossible date is a ValueError, an alias of the value that it stands in a RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RewardError(f"{path} is not valid YAML: {error}") from error


def _refuse_twins(node: yaml.Node, path: Path) -> None:
    """YAML readers keep the last of two equal keys without a word, and a reward would be lost."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twins := sorted({key for key in keys if keys.count(key) > 1}):
            raise RewardError(
                f"{path}: {', '.join(twins)}: this key stands here twice; to use a reward twice, give one another name "
                "and `reward: NAME`"
            )
        for _, value in node.value:
            _refuse_twins(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twins(value, path)
