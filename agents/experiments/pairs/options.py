"""What an arm may set in the file of an experiment: one record per method, checked by pydantic."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic import Field

from agents.experiments.pairs.writing import Task
from agents.scenarios.planner_settings import Share
from steer.latents.schedules import ScheduleConfig
from steer.records import StrictRecord
from steer.search.action import Action
from steer.search.budget import Budget
from steer.search.config import UNGUIDED_MENU, SearchConfig
from steer.search.policies import make_policy
from steer.writing.config import WritingConfig
from steer.writing.proposals import Drafts

Scale = Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)]


class Options(StrictRecord):
    """Keys that an arm may have in the file besides its name and method. A method without any takes this class.

    Attributes:
        budgeted: whether an arm of this method needs a budget.
        diegetic: whether the goal enters the visible text, where the characters can hear it.
    """

    budgeted: ClassVar[bool] = False
    diegetic: ClassVar[bool] = False

    def writing(self, config: WritingConfig) -> WritingConfig:
        """How an arm with these options writes.

        Args:
            config: how all arms do.
        """
        return config


class DraftOptions(Options):
    """Options of methods that mix pulls into drafts.

    Attributes:
        drafts: how the model makes them: `write` writes a span and encodes it, `head` asks its draft head.
    """

    drafts: Drafts = "write"

    def writing(self, config: WritingConfig) -> WritingConfig:
        """How an arm with these options writes: with these drafts."""
        return replace(super().writing(config), drafts=self.drafts)


class PullOptions(DraftOptions):
    """Options of methods that pull, besides how hard: the scale of classifier-free guidance (1: without)."""

    guidance_scale: Scale = 1.0

    def writing(self, config: WritingConfig) -> WritingConfig:
        """How an arm with these options writes: with this guidance."""
        return replace(super().writing(config), guidance_scale=self.guidance_scale)


class FixedOptions(PullOptions):
    """Options of `fixed`: the weight."""

    start: Share = 0.5

    def writing(self, config: WritingConfig) -> WritingConfig:
        """How an arm with these options writes: by a constant schedule."""
        return replace(super().writing(config), schedule=ScheduleConfig("constant", self.start))


class ScheduleOptions(Options):
    """Options of methods that pull by a schedule: its name and its ends (by default its own)."""

    schedule: str = "bridge"
    start: Share | None = None
    end: Share | None = None

    @pydantic.model_validator(mode="after")
    def _check_ends(self) -> Self:
        self.schedule_config()
        return self

    def writing(self, config: WritingConfig) -> WritingConfig:
        """How an arm with these options writes: by this schedule."""
        return replace(super().writing(config), schedule=self.schedule_config())

    def schedule_config(self) -> ScheduleConfig:
        """The schedule that is in force.

        Raises:
            GuidanceError: it is unknown, or does not take `start` or `end`.
        """
        return ScheduleConfig(self.schedule, self.start, self.end)


class AnnealedOptions(ScheduleOptions, PullOptions):
    """Options of `annealed`: the schedule."""


class SearchOptions(Options):
    """Options of `search`: one of `steer.search.policies.POLICIES`, and its own settings."""

    budgeted: ClassVar[bool] = True

    policy: str = "mcts"
    policy_options: dict[str, Any] = {}

    @pydantic.model_validator(mode="after")
    def _check_policy(self) -> Self:
        make_policy(self.policy, self.policy_options)
        return self

    def actions(self) -> Sequence[Action]:
        """What the search may do with a span."""
        return UNGUIDED_MENU

    def search(self, task: Task) -> SearchConfig:
        """How an arm with these options searches under the budget of a task."""
        assert task.budget is not None  # the file's reader sees to it
        return SearchConfig(
            budget=Budget(tokens=round(task.budget * task.plain_tokens)),
            policy=self.policy,
            policy_options=self.policy_options,
            menu=self.actions(),
            rewards=task.rewards,
        )


class MenuItem(Options):
    """One action that a guided search may take: factor on the schedule, scale, temperature (None: as in sampling)."""

    strength: float = 1.0
    guidance_scale: float = 1.0
    temperature: float | None = None

    @pydantic.model_validator(mode="after")
    def _check_values(self) -> Self:
        self.action()
        return self

    def action(self) -> Action:
        """The same for `steer.search`.

        Raises:
            SearchError: a value is out of range.
        """
        return Action(strength=self.strength, guidance_scale=self.guidance_scale, temperature=self.temperature)


class GuidedSearchOptions(ScheduleOptions, SearchOptions, DraftOptions):
    """Options of `guided-search`: policy, schedule, and the menu of pulls that the search tries."""

    menu: tuple[MenuItem, ...] = Field(
        default=(MenuItem(guidance_scale=1.5), MenuItem(strength=0.7, guidance_scale=1.5)), min_length=1
    )

    def actions(self) -> Sequence[Action]:
        """The menu."""
        return tuple(item.action() for item in self.menu)


class WaypointOptions(AnnealedOptions):
    """Options of `waypoints`: those of `annealed`, and by what way.

    Attributes:
        store: folder of the indexed passages, see `steer index build`.
        count: waypoints at most.
        strength: their share of what the terminal leaves of a draft.
    """

    store: str = Field(min_length=1)
    count: int = Field(default=3, ge=1)
    strength: Share = 0.5


class VoiceOptions(AnnealedOptions):
    """Options of `voice`: those of `annealed`, and in whose manner.

    Attributes:
        samples: texts of any length; in the file also the name of a file with a text per line, from the experiment's
            folder.
        weight: pull towards the mean of their latents at every span, as far as the terminal leaves room for it.
        goal: whether the terminal pulls as well.
    """

    samples: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    weight: Share = 0.15
    goal: bool = True


class VectorOptions(Options):
    """Options of `vectors`: how much is added to which layer.

    Attributes:
        strength: in multiples of the mean norm of a residual in that layer.
        layer: counted from 0; by default the middle one.
    """

    strength: float = Field(default=0.2, ge=0, le=10, allow_inf_nan=False)
    layer: int | None = Field(default=None, ge=0)


class PromptedOptions(Options):
    """Options of `prompted`: how the goal is told. `{terminal}` stands for it."""

    diegetic: ClassVar[bool] = True

    told: str = "This is a story that ends like this: {terminal}\n\n"

    @pydantic.field_validator("told")
    @classmethod
    def _check_told(cls, told: str) -> str:
        if "{terminal}" not in told:
            raise ValueError("the goal would not be told; write {terminal} where it belongs")
        return told
