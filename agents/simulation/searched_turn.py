"""A turn that is searched for: many candidates for its spans, compared by rewards; the best path is written."""

from collections.abc import Sequence

from agents.characters.planner import DECIMALS, Hopes, Plan
from agents.log.events import SearchRecord
from agents.scenarios.schema import Scenario
from steer.models.latent_model import LatentModel
from steer.rewards import RewardsConfig, default_rewards
from steer.search.budget import Budget
from steer.search.config import UNGUIDED_MENU, SearchConfig
from steer.search.searched import SearchResult, write_searched
from steer.writing.config import WritingConfig

# What a reward looks at that a turn may lack.
NEED_TERMINAL, NEED_AVOID = {"similarity", "reach"}, {"avoid"}


def turn_rewards(scenario: Scenario, model: LatentModel, hopes: Hopes) -> RewardsConfig | None:
    """What a turn's candidates can be compared by: the scenario's rewards, or the default ones.

    Those that look at something which this turn lacks are left out.

    Returns:
        None where nothing is left.
    """
    wished, shunned = hopes.terminal is not None, hopes.avoid is not None
    rewards = scenario.planner.rewards
    if rewards is None:
        rewards = default_rewards(wished, model.reach is not None, shunned)
    lacking = (set() if wished else NEED_TERMINAL) | (set() if shunned else NEED_AVOID)
    kept = {name: spec for name, spec in rewards.root.items() if spec.reward not in lacking}
    return RewardsConfig.model_validate(kept) if kept else None


def search_turn(
    scenario: Scenario,
    model: LatentModel,
    visible: Sequence[int],
    plan: Plan,
    rewards: RewardsConfig,
    seed: int,
    config: WritingConfig,
) -> tuple[SearchResult, SearchRecord]:
    """Search for the spans of a turn, under a budget of tokens alone, so that it can be repeated.

    Args:
        scenario: for its planner's settings.
        model: writes and encodes.
        visible: token ids of all that is visible.
        plan: with hopes, by which candidates are compared; without any pull, every candidate is written unguided.
        rewards: see `turn_rewards`.
        seed: of the turn.
        config: how it is written.

    Raises:
        KeyboardInterrupt: Ctrl-C. What half a search found would not be the same when the run is resumed.
    """
    planner, hopes = scenario.planner, plan.hopes
    assert hopes is not None
    budget = planner.budget * config.spans * model.span_tokens
    search = SearchConfig(
        budget=Budget(tokens=budget),
        policy=planner.policy,
        policy_options=planner.policy_options,
        menu=planner.actions() if plan.pulls else UNGUIDED_MENU,
        rewards=rewards,
        deadline=hopes.deadline,
    )
    found = write_searched(
        model,
        [list(visible)],
        terminals=hopes.terminal,
        pulls=plan.pulls,
        avoid=hopes.avoid,
        seeds=[seed],
        config=config,
        search=search,
    )[0]
    if found.status == "interrupted":
        raise KeyboardInterrupt
    path = found.tree.path(found.node)
    figures = found.tree.components[path].T.tolist()
    record = SearchRecord(
        method=planner.method,
        policy=planner.policy,
        budget=budget,
        tokens=found.spent.tokens,
        nodes=found.spent.nodes,
        status=found.status,
        finished=found.finished,
        value=round(found.value, DECIMALS),
        components={
            name: tuple(round(figure, DECIMALS) for figure in column)
            for name, column in zip(found.tree.names, figures, strict=True)
        },
        actions=tuple(found.tree.action[path].tolist()),
    )
    return found, record
