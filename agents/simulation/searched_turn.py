"""A turn that is searched for: many candidates for its spans, compared by rewards; the best path is written."""

from collections.abc import Sequence

from agents.characters.planner import DECIMALS, Hopes
from agents.log.events import SearchRecord
from agents.scenarios.schema import Scenario
from steer.latents.pull import Pull
from steer.models.latent_model import LatentModel
from steer.rewards import RewardsConfig, default_rewards
from steer.search.action import Action
from steer.search.budget import Budget
from steer.search.searched import SearchResult, write_searched
from steer.writing.limits import Limits

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
        rewards = default_rewards(wished, getattr(model, "reach", None) is not None, shunned)
    lacking = (set() if wished else NEED_TERMINAL) | (set() if shunned else NEED_AVOID)
    kept = {name: spec for name, spec in rewards.root.items() if spec.reward not in lacking}
    return RewardsConfig.model_validate(kept) if kept else None


def search_turn(
    scenario: Scenario,
    model: LatentModel,
    visible: Sequence[int],
    pulls: Sequence[Pull],
    hopes: Hopes,
    rewards: RewardsConfig,
    seed: int,
    limits: Limits,
) -> tuple[SearchResult, SearchRecord]:
    """Search for the spans of a turn, under a budget of tokens alone, so that it can be repeated.

    Args:
        scenario: for its planner's settings.
        model: writes and encodes.
        visible: token ids of all that is visible.
        pulls: as planned; without any, every candidate is written unguided.
        hopes: what candidates are compared by.
        rewards: see `turn_rewards`.
        seed: of the turn.
        limits: what may not be written.

    Raises:
        KeyboardInterrupt: Ctrl-C. What half a search found would not be the same when the run is resumed.
    """
    planner = scenario.planner
    budget = planner.budget * scenario.spans_per_turn * model.span_tokens
    found = write_searched(
        model,
        [list(visible)],
        terminals=hopes.terminal,
        spans=scenario.spans_per_turn,
        policy=planner.policy,
        policy_options=planner.policy_options,
        budget=Budget(tokens=budget),
        seeds=[seed],
        sampling=scenario.sampling.config(),
        menu=planner.actions() if pulls else (Action(),),
        pulls=pulls,
        deadline=hopes.deadline,
        rewards=rewards,
        avoid=hopes.avoid,
        limits=limits,
        drafts=planner.drafts,
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
