"""The planner: from the visible state and a character's open goals to the pulls of one turn.

**Choosing.** One goal of a character is active at a time, until it is reached or its deadline has passed. Then the
character's terminals nearest to the state (the last span of visible tokens) are retrieved, settled ones are left out,
and each is scored by the policy of choice (`agents.characters.selection`). The best becomes active; among equals the
nearer.

**Pulling.** The schedule runs over all spans that the character writes from the turn in which the goal became active to
its deadline, so that it arrives with the very last of them; a turn takes its slice, times the goal's weight. With
arrival control it pulls harder while the chance to arrive in time is below the target. With a roadmap the way to the
goal is planned anew in each turn, and what the goal leaves is shared with the waypoint whose turn it is. Avoided goals
push with their weight in all spans up to their deadline. The voice pulls with `voice_weight` and the memory with its
own, as far as goal and waypoint leave room: where a schedule arrives at 1, the span is written from the terminal
itself.

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

from agents.characters.goals import Found, GoalBook
from agents.characters.memory import Memory
from agents.characters.selection import CHOICES, Facts, arrival_gain
from agents.errors import GoalError
from agents.index.roadmap import Roadmap, Route
from agents.log.events import Candidate, PlannedWaypoint, PlanRecord
from agents.scenarios.planner_settings import SEARCHES
from agents.scenarios.schema import Character, Goal, Scenario, goal_key
from steer.heads.reach import ReachHead
from steer.latents.pull import Pull
from steer.latents.waypoints import waypoint_pulls

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
        guidance_scale: of classifier-free guidance, 1 where nothing pulls.
        record: the same for the log.
        hopes: where the turn is searched for.
    """

    pulls: tuple[Pull, ...]
    guidance_scale: float
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
    reach: ReachHead | None = None,
    roadmap: Roadmap | None = None,
    memory: Memory | None = None,
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
        reach: the model's reach head, for chances.
        roadmap: to plan ways by; None goes straight.
        memory: what the character remembers now.

    Raises:
        GoalError: the planner asks for arrival control, and there is no reach head.
    """
    if scenario.planner.method == "unguided":
        return Plan((), 1.0, PlanRecord())
    spans = scenario.spans_per_turn
    candidates = weigh(scenario, book, character=character, turn=turn, state=state, settled=settled, reach=reach)
    if active is None and candidates:
        active = (candidates[0].goal, turn)

    course = _Course(torch.zeros(spans), torch.zeros(spans))
    if active is not None:
        course = _towards(scenario, book, character, turn, state, active, reach, roadmap)
    pulls, weights, waypoint, route = list(course.pulls), course.weights, course.waypoint, course.route
    voice = torch.zeros(0)
    if character.id in book.voices:
        voice = (1 - weights - waypoint).clamp(0, scenario.planner.voice_weight)
        pulls.append(_pull(book.voices[character.id], voice))
    remembered = torch.zeros(0)
    if memory is not None and scenario.planner.memory is not None:
        taken = weights + waypoint + (voice if len(voice) else 0)
        remembered = (1 - taken).clamp(0, scenario.planner.memory.weight)
        pulls.append(Pull(memory.latent, remembered.float()))
    avoids = [g for g in character.goals if g.kind == "avoid" and turn <= scenario.deadline(g)]
    pushes = {g.id: torch.full((spans,), g.weight) for g in avoids}
    pulls += [_pull(book.vectors[goal_key(character.id, id)], push, avoid=True) for id, push in pushes.items()]
    hopes = None
    if scenario.planner.method in SEARCHES:
        shunned = [pull.latent for pull in pulls if pull.avoid and bool((pull.weights > 0).any())]
        left = spans if course.terminal is None else course.steps - course.step
        hopes = Hopes(course.terminal, left, torch.stack(shunned) if shunned else None)
    if scenario.planner.method == "search":
        pulls, weights, voice, pushes = [], weights[:0], weights[:0], {}
        waypoint, remembered, route, memory = weights, weights, None, None

    # Pulls that weigh nothing are left out, so that a run without any weight is the unguided run, bit for bit.
    used = tuple(pull for pull in pulls if bool((pull.weights > 0).any()))
    scale = scenario.planner.guidance_scale if used else 1.0
    record = PlanRecord(
        goal=active[0] if active else None,
        since=active[1] if active else None,
        step=course.step,
        steps=course.steps,
        candidates=tuple(candidates),
        weights=_figures(weights) if active else (),
        voice=_figures(voice),
        avoid={id: _figures(push) for id, push in pushes.items()},
        chance=course.chance,
        gain=course.gain,
        waypoints=_waypoints(route),
        waypoint=_figures(waypoint) if route is not None and route.waypoints else (),
        memories=() if memory is None else memory.recalled,
        memory=_figures(remembered),
    )
    return Plan(used, scale, record, hopes)


@dataclass(frozen=True)
class _Course:
    """How a turn goes towards the active goal.

    Attributes:
        weights, waypoint: float32 `[spans_per_turn]`, of the pulls towards the goal and towards a waypoint.
        pulls: towards the goal first, then towards waypoints.
        step, steps: the turn's first span within all spans of the schedule.
        terminal: latent of a goal that weighs something.
        chance, gain: with arrival control.
        route: with a roadmap.
    """

    weights: Tensor
    waypoint: Tensor
    pulls: tuple[Pull, ...] = ()
    step: int = 0
    steps: int = 0
    terminal: Tensor | None = None
    chance: float | None = None
    gain: float | None = None
    route: Route | None = None


def _towards(
    scenario: Scenario,
    book: GoalBook,
    character: Character,
    turn: int,
    state: NDArray[np.float32],
    active: tuple[str, int],
    reach: ReachHead | None,
    roadmap: Roadmap | None,
) -> _Course:
    """Slice the schedule, press on where the goal falls behind, and lay the way through waypoints."""
    planner, spans = scenario.planner, scenario.spans_per_turn
    goal = next(g for g in character.goals if g.id == active[0])
    step = spans * own_turns(scenario, character, active[1], turn - 1)
    steps = spans * own_turns(scenario, character, active[1], scenario.deadline(goal))
    weights = planner.config().weights(steps)[step : step + spans] * goal.weight
    vector = book.vectors[goal_key(character.id, goal.id)]
    chance = gain = route = None
    if planner.arrival is not None:
        chance = _chance(reach, state, vector, steps - step)
        gain = round(arrival_gain(chance, target=planner.arrival.target, hurry=planner.arrival.hurry), DECIMALS)
        weights = (weights * gain).clamp(max=1)
    pulls = [_pull(vector, weights)]
    terminal = pulls[0].latent if goal.weight > 0 else None
    waypoint = torch.zeros(spans)
    if roadmap is not None and planner.roadmap is not None and terminal is not None:
        route = roadmap.plan(state, vector, spans=steps - step, count=planner.roadmap.waypoints)
        way = [torch.from_numpy(route.vectors.copy())]
        for pull in waypoint_pulls(way, weights, strength=planner.roadmap.strength, steps=steps - step):
            pulls.append(Pull(pull.latent[0], pull.weights[0]))
            waypoint = waypoint + pull.weights[0]
    return _Course(weights, waypoint, tuple(pulls), step, steps, terminal, chance, gain, route)


def weigh(
    scenario: Scenario,
    book: GoalBook,
    *,
    character: Character,
    turn: int,
    state: NDArray[np.float32],
    settled: set[str],
    reach: ReachHead | None = None,
) -> list[Candidate]:
    """Score a character's open terminals by the scenario's policy of choice; best first, among equals the nearer.

    Chances are asked for, and recorded, where the policy goes by them.
    """
    over = {goal.id for goal in character.goals if scenario.deadline(goal) < turn}
    choose = scenario.planner.choose
    most = scenario.planner.candidates if choose in ("balanced", "similarity") else max(len(character.goals), 1)
    found = book.search(state, character, k=most, skip=settled | over)
    scored = []
    for item in found:
        turns = own_turns(scenario, character, turn, scenario.deadline(item.goal))
        chance = None
        if choose == "reach" and reach is not None:
            vector = book.vectors[goal_key(character.id, item.goal.id)]
            chance = _chance(reach, state, vector, turns * scenario.spans_per_turn)
        scored.append(_score(item, turns, chance, choose))
    return sorted(scored, key=lambda c: -c.score)


def own_turns(scenario: Scenario, character: Character, first: int, last: int) -> int:
    """How many of the turns from `first` to `last`, both included, are a character's own."""
    place, count = scenario.characters.index(character), len(scenario.characters)

    def up_to(turn: int) -> int:
        return max(0, (turn - 1 - place) // count + 1)

    return up_to(last) - up_to(first - 1) if last >= first else 0


def _score(item: Found, turns: int, chance: float | None, choose: str) -> Candidate:
    goal: Goal = item.goal
    return Candidate(
        goal=goal.id,
        similarity=round(item.similarity, DECIMALS),
        weight=goal.weight,
        urgency=round(1 / turns, DECIMALS),
        score=round(CHOICES[choose](Facts(item.similarity, goal.weight, turns, chance)), DECIMALS),
        chance=chance,
    )


def _chance(reach: ReachHead | None, state: NDArray[np.float32], terminal: NDArray[np.float32], spans: int) -> float:
    """Probability that a terminal is told within so many spans."""
    if reach is None:
        raise GoalError(
            "arrival control needs a model with a reach head, and this one has none; train one (steer train reach), or "
            "leave `arrival` out of the planner"
        )
    here, there = (torch.from_numpy(vector.copy())[None] for vector in (state, terminal))
    return round(float(reach.within(here, there, spans)[0]), DECIMALS)


def _waypoints(route: Route | None) -> tuple[PlannedWaypoint, ...]:
    return tuple(
        PlannedWaypoint(
            id=w.id,
            text=w.text,
            source=w.source,
            similarity=round(w.similarity, DECIMALS),
            chance=round(w.chance, DECIMALS),
        )
        for w in (route.waypoints if route is not None else ())
    )


def _pull(vector: NDArray[np.float32], weights: Tensor, *, avoid: bool = False) -> Pull:
    return Pull(torch.from_numpy(vector.copy()), weights.float(), avoid=avoid)


def _figures(weights: Tensor) -> tuple[float, ...]:
    return tuple(round(value, DECIMALS) for value in weights.tolist())
