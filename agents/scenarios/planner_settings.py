"""The part `planner` of a scenario: how goals become pulls, and how a turn is searched for."""

from typing import Annotated, Any, Literal, Self, get_args

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from steer.latents.schedules import SCHEDULES, ScheduleConfig
from steer.records import StrictRecord
from steer.rewards import RewardsConfig
from steer.search.action import Action
from steer.search.policies import POLICIES, make_policy
from steer.writing.config import WritingConfig
from steer.writing.proposals import Drafts

Share = Annotated[float, Field(ge=0, le=1)]
Method = Literal["annealed", "fixed", "unguided", "search", "guided-search"]
SEARCHES = ("search", "guided-search")
SEARCH_KEYS = ("policy", "policy_options", "budget", "menu", "rewards")
Choice = Literal["balanced", "similarity", "reach", "priority", "deadline"]

# What people may write; `RewardsConfig` fills in the rest, and its own schema describes the result.
_REWARDS_SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "anyOf": [
                    {"type": "number"},
                    {"type": "null"},
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "reward": {"type": "string"},
                            "weight": {"type": "number"},
                            "at": {"enum": ["step", "end", "potential"]},
                            "options": {"type": "object"},
                        },
                    },
                ]
            },
        },
        {"type": "null"},
    ],
    "default": None,
}


class MenuItem(StrictRecord):
    """One way of writing a span that a guided search may choose; see `steer.search.span_environment.Action`.

    Attributes:
        strength: factor on the pulls' weights, which are then cut at 1; 0 writes unguided.
        guidance_scale: of classifier-free guidance; by default the planner's `guidance_scale`.
        temperature: instead of that of `sampling`.
    """

    strength: float = Field(ge=0, le=100, allow_inf_nan=False)
    guidance_scale: float | None = Field(default=None, ge=0, le=20, allow_inf_nan=False)
    temperature: float | None = Field(default=None, ge=1e-4, le=100, allow_inf_nan=False)


class Arrival(StrictRecord):
    """Arrival control: pull harder while a goal falls behind its deadline. Needs a model with a reach head.

    Attributes:
        target: chance of arriving in time at which the schedule is left as it is.
        hurry: how much harder to pull where there is no chance: by this share of the schedule's weights.
    """

    target: float = Field(default=0.5, gt=0, le=1)
    hurry: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)


class RoadmapPart(StrictRecord):
    """Go by way of waypoints: passages of other stories; see `agents.index.roadmap`.

    Attributes:
        store: folder of the index, as `steer index build` makes it; a relative path counts from the scenario's file.
        waypoints: between state and goal, at most.
        strength: share that the waypoint takes of what the goal leaves of a draft.
    """

    store: str = Field(min_length=1)
    waypoints: int = Field(default=3, ge=1, le=100)
    strength: Share = 0.5


class MemoryPart(StrictRecord):
    """Mix what a character remembers into its drafts; see `agents.characters.memory`.

    Attributes:
        weight: of the memories, as far as goal, waypoint and voice leave room for it.
        count: memories at most.
        half_life: turns after which a memory counts half as recent.
    """

    weight: Share = 0.1
    count: int = Field(default=3, ge=1, le=100)
    half_life: float = Field(default=8.0, gt=0, allow_inf_nan=False)


class Planner(StrictRecord):
    """How goals become pulls, and how a turn is searched for.

    Attributes:
        method: `annealed` follows the schedule, `fixed` pulls with the same weight `start` (0.5) at every span,
            `unguided` not at all. `search` writes many turns without a pull and keeps the best, `guided-search` pulls
            as `annealed` does, as hard as the menu allows.
        schedule: one of `steer.latents.schedules.SCHEDULES`, for `annealed` and `guided-search`.
        start, end: of the schedule; by default its own.
        voice_weight: pull towards the character's voice, as far as the goal leaves room for it.
        guidance_scale: strength of classifier-free guidance; 1 does without, above 1 costs a second forward pass.
        candidates: how many open goals are weighed against each other, the nearest; policies of choice that do not go
            by nearness weigh all.
        choose: which open goal becomes active; one of `agents.characters.selection.CHOICES`.
        arrival, roadmap, memory: see there; by default none of them.
        drafts: how the model proposes what pulls are mixed into: `write` writes a span and encodes it, `head` asks the
            model's draft head, which costs no tokens; see `steer.heads.prior`.
        reached: cosine from which a goal counts as reached; by default the model's calibrated value, or 0.6.
        policy: one of `steer.search.policies.POLICIES`. This and what follows is for the two searches alone.
        policy_options: of the policy.
        budget: tokens that a turn may cost, in multiples of what it costs to write it once.
        menu: of `guided-search`; by default strengths 1 and 0.7.
        rewards: what is good, see `steer.rewards`; by default what the search takes where nothing is said.
    """

    method: Method = "annealed"
    schedule: str = "bridge"
    start: Share | None = None
    end: Share | None = None
    voice_weight: Share = 0.1
    guidance_scale: float = Field(default=WritingConfig().scales()[0], ge=0, le=20, allow_inf_nan=False)
    candidates: int = Field(default=4, ge=1)
    choose: str = Field(default="balanced", json_schema_extra={"enum": list(get_args(Choice))})
    arrival: Arrival | None = None
    roadmap: RoadmapPart | None = None
    memory: MemoryPart | None = None
    drafts: Drafts = "write"
    reached: float | None = Field(default=None, gt=0, le=1)
    policy: str = Field(default="mcts", json_schema_extra={"enum": list(POLICIES)})
    policy_options: dict[str, Any] = {}
    budget: int = Field(default=8, ge=1, le=100_000)
    menu: tuple[MenuItem, ...] = ()
    rewards: Annotated[RewardsConfig | None, pydantic.WithJsonSchema(_REWARDS_SCHEMA)] = None

    @pydantic.field_validator("schedule", "choose", "policy")
    @classmethod
    def _check_name(cls, name: str, info: pydantic.ValidationInfo) -> str:
        what, known = {
            "schedule": ("schedule", sorted(SCHEDULES)),
            "choose": ("way of choosing", get_args(Choice)),
            "policy": ("policy", POLICIES),
        }[str(info.field_name)]
        if name not in known:
            raise ValueError(f"unknown {what}; expected one of {', '.join(known)}")
        return name

    @pydantic.model_validator(mode="after")
    def _check_options(self) -> Self:
        self.config()
        if self.method not in SEARCHES:
            if given := [name for name in SEARCH_KEYS if name in self.model_fields_set]:
                raise error_at(given[0], f"this key belongs to method search or guided-search, not to {self.method}")
            return self
        try:
            make_policy(self.policy, self.policy_options)
        except ValueError as error:
            raise error_at("policy_options", str(error)) from error
        if self.method == "search" and self.menu:
            raise error_at("menu", "method search writes without pulls; a menu belongs to method guided-search")
        if self.method == "guided-search" and self.drafts == "write" and self.budget < 2:
            raise error_at("budget", "a guided span costs a draft and a span: guided-search needs at least 2")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _without_foreign_keys(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the searches' keys where nothing is searched, so that the file can be read back."""
        data = handler(self)
        return data if self.method in SEARCHES else {key: data[key] for key in data if key not in SEARCH_KEYS}

    def config(self) -> ScheduleConfig:
        """The schedule that is in force.

        Raises:
            GuidanceError: the schedule does not take `start` or `end`.
        """
        return ScheduleConfig("constant" if self.method == "fixed" else self.schedule, self.start, self.end)

    def actions(self) -> tuple[Action, ...]:
        """What a search may do with a span where there are pulls."""
        if self.method != "guided-search":
            return (Action(),)
        menu = self.menu or (MenuItem(strength=1.0), MenuItem(strength=0.7))
        return tuple(
            Action(
                item.strength,
                self.guidance_scale if item.guidance_scale is None else item.guidance_scale,
                item.temperature,
            )
            for item in menu
        )


def error_at(place: str, message: str) -> PydanticCustomError:
    """An error of a whole part that belongs to one place in it, such as `goals.0.text`."""
    # The message goes in as a value: braces in it are not for pydantic to fill.
    return PydanticCustomError("scenario", "{message}", {"message": message, "place": place})
