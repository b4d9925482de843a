"""The planner: from the visible state and a character's open goals to the pulls of one turn.

**Choosing.** One goal of a character is active at a time, until it is reached or its deadline has passed. Then the
character's terminals nearest to the state (the last span of visible tokens) are retrieved, settled ones are left out,
and each is scored

    score = (1 + cosine(state, terminal)) / 2 * weight / n

where n is the number of the character's own turns up to the goal's deadline, the present one included: a goal that
must be reached now counts twice as much as one that has another turn. The best becomes active; among equals the nearer.

**Pulling.** The schedule runs over all spans that the character writes from the turn in which the goal became active to
its deadline, so that it arrives with the very last of them; a turn takes its slice, times the goal's weight. Avoided
goals push with their weight in all spans up to their deadline. The voice pulls with `voice_weight`, or with what the
goal leaves of 1: where a schedule arrives at 1, the span is written from the terminal itself.

**Searching.** With `search` and `guided-search` a turn's spans are searched for. Candidates are compared by rewards,
for which the plan names the active goal's latent, the spans until its deadline, and what is to be avoided. `search`
plans no pulls. Rewards that look at what a turn lacks (a goal, something to avoid) are left out of it; where none
remains, the turn is written without a search: as `annealed` would with `guided-search`, unguided with `search`.

Retrieval changes nothing; a plan takes effect when its turn is in the log.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.events import Candidate, PlanRecord
from agents.goals import GoalBook
from agents.planner_part import SEARCHES
from agents.scenario import Character, Goal, Scenario, goal_key
from steer.guidance import Pull

DECIMALS = 6  # of figures in the log


@dataclass(frozen=True, eq=False)
class Hopes:
    """What a turn that is searched for is compared by.

    Attributes:
        terminal: float32 `[z_dim]`, of the active goal; None without one.
        deadline: spans from the turn's first to the goal's deadline, both included; at least `spans_per_turn`.
        avoid: float32 `[a, z_dim]`, of the goals to be avoided; None without any.
    """

    terminal: Tensor | None
    deadline: int
    avoid: Tensor | None


@dataclass(frozen=True)
class Plan:
    """What to write a turn with.

    Attributes:
        pulls: with schedules `[spans_per_turn]`, and a weight above 0 somewhere.
        scale: of classifier-free guidance, None to do without.
        record: the same for the log.
        hopes: where the turn is searched for.
    """

    pulls: tuple[Pull, ...]
    scale: float | None
    record: PlanRecord
    hopes: Hopes | None = None


def plan_turn(
    scenario: Scenario,
    book: GoalBook,
    *,
    character: Character,
    turn: int,
    state: NDArray[np.float32],
    active: tuple[str, int] | None,
    settled: set[str],
) -> Plan:
    """Plan one turn of a character.

    Args:
        scenario: for its planner's settings; with `unguided` nothing is planned.
        book: the goals' latents.
        character: whose turn it is.
        turn: counted from 1.
        state: float32 `[z_dim]`, latent of the last span of visible tokens.
        active: the character's active goal and the turn since which it is, if it has one.
        settled: ids of the character's goals that are settled.
    """
    if scenario.planner.method == "unguided":
        return Plan((), None, PlanRecord())
    spans = scenario.spans_per_turn
    candidates = weigh(scenario, book, character=character, turn=turn, state=state, settled=settled)
    if active is None and candidates:
        active = (candidates[0].goal, turn)

    pulls: list[Pull] = []
    weights = torch.zeros(spans)
    step = steps = 0
    terminal = None
    if active is not None:
        goal = next(g for g in character.goals if g.id == active[0])
        step = spans * own_turns(scenario, character, active[1], turn - 1)
        steps = spans * own_turns(scenario, character, active[1], scenario.deadline(goal))
        weights = scenario.planner.config().weights(steps)[step : step + spans] * goal.weight
        pulls.append(_pull(book.vectors[goal_key(character.id, goal.id)], weights))
        terminal = pulls[0].latent if goal.weight > 0 else None
    voice = torch.zeros(0)
    if character.id in book.voices:
        voice = (1 - weights).clamp(max=scenario.planner.voice_weight)
        pulls.append(_pull(book.voices[character.id], voice))
    avoids = [g for g in character.goals if g.kind == "avoid" and turn <= scenario.deadline(g)]
    pushes = {g.id: torch.full((spans,), g.weight) for g in avoids}
    pulls += [_pull(book.vectors[goal_key(character.id, id)], push, avoid=True) for id, push in pushes.items()]
    hopes = None
    if scenario.planner.method in SEARCHES:
        shunned = [pull.latent for pull in pulls if pull.avoid and bool((pull.weights > 0).any())]
        left = spans if terminal is None else steps - step
        hopes = Hopes(terminal, left, torch.stack(shunned) if shunned else None)
    if scenario.planner.method == "search":
        pulls, weights, voice, pushes = [], weights[:0], weights[:0], {}

    # Pulls that weigh nothing are left out, so that a run without any weight is the unguided run, bit for bit.
    used = tuple(pull for pull in pulls if bool((pull.weights > 0).any()))
    scale = scenario.planner.cfg_scale if used and scenario.planner.cfg_scale != 1 else None
    record = PlanRecord(
        goal=active[0] if active else None,
        since=active[1] if active else None,
        step=step,
        steps=steps,
        candidates=tuple(candidates),
        weights=_figures(weights) if active else (),
        voice=_figures(voice),
        avoid={id: _figures(push) for id, push in pushes.items()},
    )
    return Plan(used, scale, record, hopes)


def weigh(
    scenario: Scenario,
    book: GoalBook,
    *,
    character: Character,
    turn: int,
    state: NDArray[np.float32],
    settled: set[str],
) -> list[Candidate]:
    """Score a character's open terminals that are nearest to the state; best first. See the module for the formula."""
    over = {goal.id for goal in character.goals if scenario.deadline(goal) < turn}
    found = book.search(state, character, k=scenario.planner.candidates, skip=settled | over)
    scored = [_score(scenario, character, turn, item.goal, item.similarity) for item in found]
    return sorted(scored, key=lambda c: -c.score)


def own_turns(scenario: Scenario, character: Character, first: int, last: int) -> int:
    """How many of the turns from `first` to `last`, both included, are a character's own."""
    place, count = scenario.characters.index(character), len(scenario.characters)

    def up_to(turn: int) -> int:
        return max(0, (turn - 1 - place) // count + 1)

    return up_to(last) - up_to(first - 1) if last >= first else 0


def _score(scenario: Scenario, character: Character, turn: int, goal: Goal, similarity: float) -> Candidate:
    urgency = 1 / own_turns(scenario, character, turn, scenario.deadline(goal))
    return Candidate(
        goal=goal.id,
        similarity=round(similarity, DECIMALS),
        weight=goal.weight,
        urgency=round(urgency, DECIMALS),
        score=round((1 + similarity) / 2 * goal.weight * urgency, DECIMALS),
    )


def _pull(vector: NDArray[np.float32], weights: Tensor, *, avoid: bool = False) -> Pull:
    return Pull(torch.from_numpy(vector.copy()), weights.float(), avoid=avoid)


def _figures(weights: Tensor) -> tuple[float, ...]:
    return tuple(round(value, DECIMALS) for value in weights.tolist())
