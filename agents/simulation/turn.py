"""One turn: cue, plan, write, cut, measure. A function of scenario, model, goals and state; nothing else enters it.

Visible ids are the opening's, then for each turn the cue's and those that were kept of what was written. They are only
ever appended, as ids; nothing is tokenised again, and no special token is among them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from agents.characters.goals import GoalBook
from agents.characters.memory import Recollection
from agents.characters.planner import DECIMALS, Plan, plan_turn
from agents.index.roadmap import Roadmap
from agents.log.events import OpeningEvent, TurnEvent, hash_ids
from agents.scenarios.schema import Character, Scenario
from agents.simulation.manifest import Arm
from agents.simulation.searched_turn import search_turn, turn_rewards
from agents.simulation.sentences import keep_sentences, split_sentences
from agents.simulation.state import ArmState
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.writing.guided import Written, write_guided
from steer.writing.limits import Limits


def arm_scenario(scenario: Scenario, arm: Arm) -> Scenario:
    """The scenario as an arm plays it: the unguided one without any pull, and else the same."""
    if arm == "guided":
        return scenario
    return scenario.model_copy(update={"planner": scenario.planner.model_copy(update={"method": "unguided"})})


def open_story(
    scenario: Scenario, model: LatentModel, book: GoalBook, threshold: float, told: float | None = None
) -> OpeningEvent:
    """The first event of an arm; `threshold` and `told` say when a goal counts as reached, see `OpeningEvent`."""
    return OpeningEvent(
        scenario=scenario.id,
        title=scenario.title or scenario.id,
        format=scenario.format,
        method=scenario.planner.method,
        seed=scenario.seed,
        turns=scenario.turns,
        text=scenario.opening,
        ids=tuple(model.to_ids(scenario.opening)),
        max_context=model.latent_config.max_context,
        span_tokens=model.span_tokens,
        threshold=threshold,
        told=told,
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
    memory = None
    if scenario.planner.memory is not None and scenario.planner.method != "unguided":
        memory = (recollection or Recollection(model)).recall(
            state.episodes,
            character=character.id,
            state=present,
            turn=turn,
            forgotten=len(visible) - model.latent_config.max_context,
            hears=None if character.hears is None else frozenset(character.hears),
            count=scenario.planner.memory.count,
            half_life=scenario.planner.memory.half_life,
        )
    plan = plan_turn(
        scenario,
        book,
        character=character,
        turn=turn,
        state=present.numpy(),
        active=state.active.get(character.id),
        settled=state.settled(character),
        reach=getattr(model, "reach", None),
        roadmap=roadmap,
        memory=memory,
    )
    seed = derive_seed(scenario.seed, "turn", turn, character.id)
    # A story's end before the last turn would leave the others nothing to do; a cue's name is a whole word; and prose
    # stays prose.
    limits = Limits(
        may_end=scenario.stop_at_end or turn == scenario.turns, whole_words=True, plays=scenario.format == "script"
    )
    rewards = None if plan.hopes is None else turn_rewards(scenario, model, plan.hopes)
    if plan.hopes is None or rewards is None:
        written, spans, drafts = _write(scenario, model, visible, plan, seed, limits)
        record = plan.record
    else:
        written, search = search_turn(scenario, model, visible, plan.pulls, plan.hopes, rewards, seed, limits)
        spans, drafts = search.nodes, search.tokens // model.span_tokens - search.nodes
        record = plan.record.model_copy(update={"search": search})
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


def _write(
    scenario: Scenario, model: LatentModel, visible: list[int], plan: Plan, seed: int, limits: Limits
) -> tuple[Written, int, int]:
    """Write the spans of a turn once; also how many they are, and how many drafts were written for them."""
    written = write_guided(
        model,
        [visible],
        pulls=plan.pulls,
        spans=scenario.spans_per_turn,
        seeds=[seed],
        sampling=scenario.sampling.config(),
        guidance_scale=plan.scale,
        limits=limits,
        drafts=scenario.planner.drafts,
    )[0]
    drafts = int((written.drafts != 0).any(dim=1).sum()) if scenario.planner.drafts == "write" else 0
    return written, written.latents.shape[0], drafts


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


def measure(
    scenario: Scenario, model: LatentModel, book: GoalBook, character: Character, text: str, ids: list[int]
) -> dict[str, float | None]:
    """How near a turn came to each goal of all characters.

    Args:
        scenario: in prose the name that starts the paragraph belongs to its first sentence.
        model: encodes.
        book: the goals' latents.
        character: whose turn it is.
        text: what was kept of the turn.
        ids: the same as tokens.

    Returns:
        For each `character/goal` the greatest cosine of its latent with those of the turn's sentences (cut to a span)
        and of its last span; None where nothing was kept.
    """
    sentences = split_sentences((character.name if scenario.format == "prose" else "") + text)
    # The encoder takes no NUL, which a model may write.
    sentences = [s for s in (sentence.replace("\0", " ").strip() for sentence in sentences) if s]
    if not ids or not sentences:
        return {key: None for key in book.vectors}
    latents = torch.cat([model.encode(sentences, long="truncate"), model.encode_ids([ids[-model.span_tokens :]])])
    units = _unit(latents.numpy())
    return {key: round(float((units @ _unit(vector)).max()), DECIMALS) for key, vector in book.vectors.items()}


def measure_told(model: LatentModel, book: GoalBook, ids: list[int]) -> dict[str, float | None]:
    """How likely each goal of all characters was told in a turn, by the model's reach head.

    The head reads whole spans, so the turn is read in windows of a span that overlap by half, and the last ends with
    the turn.

    Args:
        model: encodes; with a reach head.
        book: the goals' latents.
        ids: what was kept of the turn.

    Returns:
        For each `character/goal` the greatest probability of all windows; None where nothing was kept.
    """
    if not ids or model.reach is None:
        return {key: None for key in book.vectors}
    size = model.span_tokens
    starts = [*range(0, max(len(ids) - size, 0), max(size // 2, 1)), max(len(ids) - size, 0)]
    windows = model.encode_ids([ids[start : start + size] for start in starts])
    found: dict[str, float | None] = {}
    for key, vector in book.vectors.items():
        chances = model.reach.told(windows, torch.from_numpy(vector.copy())[None])
        found[key] = round(float(chances.max()), DECIMALS)
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
