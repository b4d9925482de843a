"""How to search: one record beside `WritingConfig`, and one default menu."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from steer.errors import SearchError
from steer.rewards import RewardsConfig
from steer.search.action import Action
from steer.search.budget import Budget
from steer.writing.config import WritingConfig, WritingOptions, writing_config

STRENGTHS = (1.0, 0.7)  # of the default menu: as hard as the pulls say, and a little less
UNGUIDED_MENU = (Action(),)


def guided_menu(guidance_scale: float = WritingConfig().scales()[0]) -> tuple[Action, ...]:
    """The default menu of a search that is guided: two strengths under one guidance scale."""
    return tuple(Action(strength, guidance_scale) for strength in STRENGTHS)


@final
@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How to search.

    Attributes:
        budget: per row.
        policy, policy_options: see `steer.search.policies`.
        menu: actions; by default `guided_menu` where there is something to steer to, else `UNGUIDED_MENU`.
        rewards: what is good; by default `steer.rewards.default_rewards`.
        deadline: spans until the terminal should be there; by default those written. With a later one, texts are
            compared by what they promise.
        rows: spans in one batch, at most.
        memory: bytes for key-value pages, see `steer.search.engines.opening.open_engine`.
        paged: see there.
    """

    budget: Budget | None = None
    policy: str = "mcts"
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    menu: Sequence[Action] | None = None
    rewards: RewardsConfig | Mapping[str, Any] | None = None
    deadline: int | None = None
    rows: int = 256
    memory: int = 2 * 2**30
    paged: bool | None = None

    def menu_for(self, config: WritingConfig, *, steers: bool) -> Sequence[Action]:
        """The actions to choose from.

        Args:
            config: whose guidance scale the default menu takes.
            steers: whether there is something to steer to.

        Raises:
            SearchError: the menu holds something else.
        """
        if self.menu is not None:
            if not isinstance(self.menu, Sequence) or not all(isinstance(each, Action) for each in self.menu):
                raise SearchError(f"a menu is a list of Action(strength, guidance_scale); got {self.menu!r:.80}")
            return self.menu
        return guided_menu(config.scales()[0]) if steers else UNGUIDED_MENU

    def budget_or_error(self) -> Budget:
        """The budget.

        Raises:
            SearchError: there is none, or it is something else.
        """
        if not isinstance(self.budget, Budget):
            raise SearchError(f"a search needs a budget: budget=Budget(tokens=...); got {self.budget!r:.80}")
        return self.budget


class SearchOptions(WritingOptions, total=False):
    """The fields of a `WritingConfig` and of a `SearchConfig` as keyword arguments."""

    budget: Budget | None
    policy: str
    policy_options: Mapping[str, Any]
    menu: Sequence[Action] | None
    rewards: RewardsConfig | Mapping[str, Any] | None
    deadline: int | None
    rows: int
    memory: int
    paged: bool | None


def writing_and_search(
    config: WritingConfig | None, search: SearchConfig | None, options: Mapping[str, Any]
) -> tuple[WritingConfig, SearchConfig]:
    """Both configurations with some fields set.

    Raises:
        GuidanceError: see `steer.writing.config.writing_config`.
    """
    names = {each.name for each in dataclasses.fields(SearchConfig)}
    own = {name: value for name, value in options.items() if name in names}
    rest = {name: value for name, value in options.items() if name not in names}
    return writing_config(config, **rest), dataclasses.replace(search or SearchConfig(), **own)
