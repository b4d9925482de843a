"""The events of a run: the opening, turns, goals settled, the end.

Nothing in them depends on the clock, so that the same scenario, seed, model and machine give the same bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from agents.errors import RunDamaged
from agents.scenarios.planner_settings import Method
from steer.search.budget import End


class _Event(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class GoalInfo(_Event):
    """A goal as the run started with it; `vector_sha256` is of its float32 latent, little-endian."""

    character: str
    name: str
    goal: str
    kind: Literal["terminal", "avoid"]
    text: str
    weight: float
    by_turn: int
    vector_sha256: str


class OpeningEvent(_Event):
    """Start of a run: the visible opening, and what later figures refer to.

    Attributes:
        arms: all that the run plays, so that none can be left out later without a change of this log.
        ids: token ids of the opening, the start of the visible context.
        max_context: visible tokens that the model is fed at most, the last ones.
        threshold: similarity from which a goal counts as reached.
        told: probability that it was told, which it must have as well; None where similarity alone decides.
        goals: for readers of the log; none of it is visible to the model.
    """

    type: Literal["opening"] = "opening"
    scenario: str
    title: str
    format: Literal["prose", "script"]
    method: Method
    arms: tuple[Literal["guided", "unguided"], ...]
    seed: int
    turns: int
    text: str
    ids: tuple[int, ...]
    max_context: int
    span_tokens: int
    threshold: float
    told: float | None = None
    goals: tuple[GoalInfo, ...]


class Candidate(_Event):
    """An open goal that was weighed; see `agents.characters.selection` for the score.

    Attributes:
        goal, weight: of the goal.
        similarity: cosine of state and terminal.
        urgency: 1 over the character's own turns until its deadline.
        score: by which it was chosen, or not.
        chance: that it is reached in time, where the planner asked the reach head.
    """

    goal: str
    similarity: float
    weight: float
    urgency: float
    score: float
    chance: float | None = None


class PlannedWaypoint(_Event):
    """A stored passage on the way to the goal; see `agents.index.roadmap.Waypoint`."""

    id: str
    text: str
    source: str
    similarity: float
    chance: float


class Recalled(_Event):
    """A turn that was remembered; see `agents.characters.memory` for the figures."""

    turn: int
    similarity: float
    recency: float
    salience: float
    score: float


class SearchRecord(_Event):
    """What a search spent on a turn, and what it came to.

    Attributes:
        method, policy: of the scenario's planner.
        budget: tokens that the turn was allowed.
        tokens: generated, drafts included.
        nodes: spans written, drafts not included.
        status: how the search ended, see `steer.search.driver.End`. Runs know no limit of time, and a turn that is
            interrupted is not in the log.
        finished: whether the chosen path has all its spans, or the story ended.
        value: of the chosen path.
        components: its rewards by name, unpooled, one figure per span.
        actions: which entry of the menu each of its spans was written by, counted from 0.
    """

    method: Method
    policy: str
    budget: int
    tokens: int
    nodes: int
    status: End
    finished: bool
    value: float
    components: dict[str, tuple[float, ...]]
    actions: tuple[int, ...]


class PlanRecord(_Event):
    """What the planner decided for a turn.

    Attributes:
        goal: id of the active goal, None where none is open (or nothing is guided).
        since: turn in which it became active.
        step, steps: the turn's first span (from 0) within all spans that the schedule runs over.
        candidates: best first.
        weights: pull towards the goal, per span.
        voice: pull towards the voice, per span; empty where there is none.
        avoid: push away from each avoided goal, per span.
        search: how the turn was found, where it was searched for.
        chance, gain: with arrival control, the chance that the goal is reached in time, and the factor on its weights.
        waypoints: the way to the goal, as planned in this turn; the turn is written towards the first.
        waypoint: pull towards that, per span.
        memories: what was recalled, best first.
        memory: pull towards it, per span.
    """

    goal: str | None = None
    since: int | None = None
    step: int = 0
    steps: int = 0
    candidates: tuple[Candidate, ...] = ()
    weights: tuple[float, ...] = ()
    voice: tuple[float, ...] = ()
    avoid: dict[str, tuple[float, ...]] = {}
    search: SearchRecord | None = None
    chance: float | None = None
    gain: float | None = None
    waypoints: tuple[PlannedWaypoint, ...] = ()
    waypoint: tuple[float, ...] = ()
    memories: tuple[Recalled, ...] = ()
    memory: tuple[float, ...] = ()


class TurnEvent(_Event):
    """One turn.

    Attributes:
        cue, cue_ids: the visible text that hands the turn over, and its tokens.
        text, ids: what the character wrote, as far as it was kept.
        context_tokens, context_sha256: number and hash (`hash_ids`) of the token ids that were fed, as the writer
            reports them.
        visible_tokens, visible_sha256: the same for the whole visible text after this turn.
        plan: see `PlanRecord`.
        similarities: for every goal (`character/goal`) its greatest cosine with a sentence of the turn or with the
            turn's last span; None where nothing was written.
        told: for every goal the probability, by the reach head, that it was told in the turn; empty where that does not
            decide.
        seed: of this turn.
        spans, drafts: written and proposed in this turn, before the cut; in a search those of all candidates.
        tokens: computed for them.
        ended: whether the model ended the story here.
    """

    type: Literal["turn"] = "turn"
    turn: int
    character: str
    name: str
    cue: str
    cue_ids: tuple[int, ...]
    text: str
    ids: tuple[int, ...]
    context_tokens: int
    context_sha256: str
    visible_tokens: int
    visible_sha256: str
    plan: PlanRecord
    similarities: dict[str, float | None]
    told: dict[str, float | None] = {}
    seed: int
    spans: int
    drafts: int
    tokens: int
    ended: bool


class GoalEvent(_Event):
    """A goal is settled: a terminal is `reached` or `failed`, an avoided one `failed` (it came up) or `kept` away."""

    type: Literal["goal"] = "goal"
    turn: int
    character: str
    goal: str
    kind: Literal["terminal", "avoid"]
    outcome: Literal["reached", "failed", "kept"]
    similarity: float | None
    told: float | None = None


class EndEvent(_Event):
    """The run is complete: all turns are played, or the model ended the story and the scenario stops there."""

    type: Literal["end"] = "end"
    turns: int
    reason: Literal["turns", "story"]
    visible_tokens: int
    visible_sha256: str


Event = OpeningEvent | TurnEvent | GoalEvent | EndEvent
_ADAPTER: pydantic.TypeAdapter[Event] = pydantic.TypeAdapter(Annotated[Event, pydantic.Field(discriminator="type")])


def hash_ids(ids: Sequence[int]) -> str:
    """SHA-256 of token ids as little-endian 32-bit integers."""
    return hashlib.sha256(np.asarray(ids, dtype="<u4").tobytes()).hexdigest()


def encode_event(event: Event, previous: str) -> bytes:
    """The line of an event, line break included, after a line with the hash `previous`."""
    data: dict[str, Any] = {"prev": previous, **event.model_dump(mode="json")}
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def decode_event(line: bytes) -> tuple[Event, str]:
    """The event of a line, and the hash of the line before it.

    Raises:
        RunDamaged: it is no event of this version.
    """
    try:
        fields = json.loads(line)
        previous = fields.pop("prev")
        return _ADAPTER.validate_python(fields), str(previous)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise RunDamaged("this line is no event of this version") from error
