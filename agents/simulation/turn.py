"""One turn: cue, plan, write, cut, measure. A function of scenario, model, goals and state; nothing else enters it.

Visible ids are the opening's, then for each turn the cue's and those that were kept of what was written. They are only
ever appended, as ids; nothing is tokenised again, and no special token is among them.
"""

from collections.abc import Sequence

from torch import Tensor

from agents.characters.goals import GoalBook
from agents.characters.memory import Memory, Recollection
from agents.characters.planner import Plan, plan_turn
from agents.index.roadmap import Roadmap
from agents.log.events import OpeningEvent, PlanRecord, TurnEvent, hash_ids
from agents.scenarios.schema import Character, Scenario
from agents.simulation.manifest import Arm, Manifest
from agents.simulation.reached import measure, measure_told
from agents.simulation.searched_turn import search_turn, turn_rewards
from agents.simulation.state import ArmState
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.search.searched import SearchResult
from steer.sentences import keep_sentences
from steer.writing.config import WritingConfig
from steer.writing.guided import Written, write_guided
from steer.writing.limits import Limits


def arm_scenario(scenario: Scenario, arm: Arm) -> Scenario:
    """The scenario as an arm plays it: the unguided one without any pull, and else the same."""
    if arm == "guided":
        return scenario
    return scenario.model_copy(update={"planner": scenario.planner.model_copy(update={"method": "unguided"})})


def open_story(scenario: Scenario, model: LatentModel, book: GoalBook, manifest: Manifest) -> OpeningEvent:
    """The first event of an arm of a run; `scenario` is as that arm plays it."""
    return OpeningEvent(
        scenario=scenario.id,
        title=scenario.title or scenario.id,
        format=scenario.format,
        method=scenario.planner.method,
        arms=manifest.arms,
        seed=scenario.seed,
        turns=scenario.turns,
        text=scenario.opening,
        ids=tuple(model.to_ids(scenario.opening)),
        max_context=model.latent_config.max_context,
        span_tokens=model.span_tokens,
        threshold=manifest.threshold,
        told=manifest.told,
        goals=book.infos(),
    )


def write_turn(
    scenario: Scenario,
    model: LatentModel,
    book: GoalBook,
    state: ArmState,
    *,
    roadmap: Roadmap | None = None,
    recollection: Recollection | None = None,
) -> TurnEvent:
    """Write the turn after a state; the state is not changed.

    A fresh writer is opened for every turn, so that a turn depends on the visible ids, the plan and its seed alone.

    Args:
        scenario: as the arm plays it, see `arm_scenario`.
        model: writes and encodes.
        book: the goals' latents.
        state: after the turns before.
        roadmap: to plan ways by, where the scenario does.
        recollection: latents of past turns that were met before; changes nothing but the time it takes.
    """
    turn = state.turn + 1
    character = scenario.speaker(turn)
    cue = scenario.cue(character)
    cue_ids = model.to_ids(cue)
    visible = state.visible + cue_ids
    present = model.encode_ids([visible[-model.span_tokens :]])[0]
    plan = plan_turn(
        scenario,
        book,
        character=character,
        turn=turn,
        state=present.numpy(),
        active=state.active.get(character.id),
        settled=state.settled(character),
        reach=model.reach,
        roadmap=roadmap,
        memory=_recall(scenario, model, state, character, present, visible, recollection),
    )
    seed = derive_seed(scenario.seed, "turn", turn, character.id)
    written, record, spans, drafts = _write(scenario, model, visible, plan, seed, turn_config(scenario, plan, turn))
    kept, text, ended = cut_turn(scenario, model, cue_ids, list(written.ids))
    visible_after = visible + kept
    return TurnEvent(
        turn=turn,
        character=character.id,
        name=character.name,
        cue=cue,
        cue_ids=tuple(cue_ids),
        text=text,
        ids=tuple(kept),
        context_tokens=len(written.context),
        context_sha256=hash_ids(written.context),
        visible_tokens=len(visible_after),
        visible_sha256=hash_ids(visible_after),
        plan=record,
        similarities=measure(scenario, model, book, character, text, kept),
        told=measure_told(model, book, kept) if state.opening is not None and state.opening.told is not None else {},
        seed=seed,
        spans=spans,
        drafts=drafts,
        tokens=(spans + drafts) * model.span_tokens,
        ended=ended,
    )


def turn_config(scenario: Scenario, plan: Plan, turn: int) -> WritingConfig:
    """How a turn is written.

    A story's end before the last turn would leave the others nothing to do; a cue's name is a whole word; and prose
    stays prose.
    """
    last = scenario.stop_at_end or turn == scenario.turns
    return WritingConfig(
        spans=scenario.spans_per_turn,
        sampling=scenario.sampling.config(),
        guidance_scale=plan.guidance_scale,
        limits=Limits(may_end=last, whole_words=True, plays=scenario.format == "script"),
        drafts=scenario.planner.drafts,
    )


def _recall(
    scenario: Scenario,
    model: LatentModel,
    state: ArmState,
    character: Character,
    present: Tensor,
    visible: Sequence[int],
    recollection: Recollection | None,
) -> Memory | None:
    """What the character remembers of the turns that its context no longer holds."""
    settings = scenario.planner.memory
    if settings is None or scenario.planner.method == "unguided":
        return None
    return (recollection or Recollection(model)).recall(
        state.episodes,
        character=character.id,
        state=present,
        turn=state.turn + 1,
        forgotten=len(visible) - model.latent_config.max_context,
        hears=None if character.hears is None else frozenset(character.hears),
        count=settings.count,
        half_life=settings.half_life,
    )


def _write(
    scenario: Scenario, model: LatentModel, visible: list[int], plan: Plan, seed: int, config: WritingConfig
) -> tuple[Written | SearchResult, PlanRecord, int, int]:
    """Write or search the spans of a turn: what was written, the record, how many spans and drafts it took."""
    rewards = None if plan.hopes is None else turn_rewards(scenario, model, plan.hopes)
    if plan.hopes is not None and rewards is not None:
        found, search = search_turn(scenario, model, visible, plan, rewards, seed, config)
        record = plan.record.model_copy(update={"search": search})
        return found, record, search.nodes, search.tokens // model.span_tokens - search.nodes
    written = write_guided(model, [visible], pulls=plan.pulls, seeds=[seed], config=config)[0]
    drafts = int((written.drafts != 0).any(dim=1).sum()) if config.drafts == "write" else 0
    return written, plan.record, written.latents.shape[0], drafts


def cut_turn(scenario: Scenario, model: LatentModel, cue_ids: list[int], ids: list[int]) -> tuple[list[int], str, bool]:
    """What is kept of a turn: up to the first special token, in a script to the end of the line, then whole sentences.

    Args:
        scenario: for its format.
        model: for its tokenizer.
        cue_ids: the tokens before, since some tokenizers write a first token without its space.
        ids: what was written.

    Returns:
        The ids to keep, their text, and whether the model ended the story right behind them.
    """
    special = set(model.tokenizer.all_special_ids)
    plain = next((i for i, token in enumerate(ids) if token in special), len(ids))
    cue = model.to_text(cue_ids)
    story_ended = plain < len(ids) and ids[plain] == model.tokenizer.eos_token_id

    def to_text(part: Sequence[int]) -> str:
        return model.to_text([*cue_ids, *part])[len(cue) :]

    whole = ids[:plain]
    count = keep_sentences(whole, to_text, single_line=scenario.format == "script")
    text = to_text(whole[:count])
    return whole[:count], text, story_ended and text.rstrip() == to_text(whole).rstrip()
