"""What an arm may set in the file of an experiment: one record per method, checked by pydantic."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic import Field

from steer.schedules import ScheduleConfig

Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)]


class Options(pydantic.BaseModel):
    """Keys that an arm may have in the file besides its name and method. A method without any takes this class.

    Attributes:
        budgeted: whether an arm of this method needs a budget.
        diegetic: whether the goal enters the visible text, where the characters can hear it.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    budgeted: ClassVar[bool] = False
    diegetic: ClassVar[bool] = False


class FixedOptions(Options):
    """Options of `fixed`: the weight, and the scale of classifier-free guidance (1: without)."""

    start: Share = 0.5
    scale: Scale = 1.0


class AnnealedOptions(Options):
    """Options of `annealed`: schedule, its ends (by default its own), scale of classifier-free guidance."""

    schedule: str = "bridge"
    start: Share | None = None
    end: Share | None = None
    scale: Scale = 1.0

    @pydantic.model_validator(mode="after")
    def _check_ends(self) -> Self:
        self.config()
        return self

    def config(self) -> ScheduleConfig:
        """The schedule that is in force.

        Raises:
            GuidanceError: it is unknown, or does not take `start` or `end`.
        """
        return ScheduleConfig(self.schedule, self.start, self.end)


class SearchOptions(Options):
    """Options of `search`: one of `steer.search.policies.POLICIES`, and its own settings."""

    budgeted: ClassVar[bool] = True

    policy: str = "mcts"
    policy_options: dict[str, Any] = {}

    @pydantic.model_validator(mode="after")
    def _check_policy(self) -> Self:
        _check_policy(self.policy, self.policy_options)
        return self


class MenuItem(Options):
    """One action that a guided search may take: factor on the schedule, scale, temperature (None: as in sampling)."""

    strength: float = 1.0
    scale: float = 1.0
    temperature: float | None = None

    @pydantic.model_validator(mode="after")
    def _check_values(self) -> Self:
        self.action()
        return self

    def action(self) -> Any:
        """The same for `steer.search`.

        Raises:
            SearchError: a value is out of range.
        """
        from steer.search.spans import Action

        return Action(strength=self.strength, scale=self.scale, temperature=self.temperature)


class GuidedSearchOptions(Options):
    """Options of `guided-search`: policy, schedule, and the menu of pulls that the search tries."""

    budgeted: ClassVar[bool] = True

    policy: str = "mcts"
    policy_options: dict[str, Any] = {}
    schedule: str = "bridge"
    start: Share | None = None
    end: Share | None = None
    menu: tuple[MenuItem, ...] = Field(default=(MenuItem(scale=1.5), MenuItem(strength=0.7, scale=1.5)), min_length=1)

    @pydantic.model_validator(mode="after")
    def _check_parts(self) -> Self:
        _check_policy(self.policy, self.policy_options)
        self.config()
        return self

    def config(self) -> ScheduleConfig:
        """The schedule that is in force.

        Raises:
            GuidanceError: it is unknown, or does not take `start` or `end`.
        """
        return ScheduleConfig(self.schedule, self.start, self.end)


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


def _check_policy(name: str, options: Mapping[str, Any]) -> None:
    from steer.search.policies import make_policy

    make_policy(name, options)
