"""How near each goal came, turn by turn, in both arms: read from the logs alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.arguments import expect_path
from agents.errors import RunNotFound
from agents.log.events import Event, GoalEvent, GoalInfo, OpeningEvent, TurnEvent
from agents.scenarios.schema import goal_key
from agents.simulation.manifest import logs_of, read_manifest
from agents.simulation.reached import is_met


@dataclass(frozen=True)
class Curve:
    """One goal in one arm.

    Attributes:
        similarities: one per turn, from turn 1; None where nothing was written.
        outcome: `reached`, `failed`, `kept` (an avoided one that did not come up), or None while it is open.
        settled: turn in which that was settled.
        reached: first turn, up to the deadline, in which it counts as told, or None. For an avoided goal that is the
            turn in which it came up.
        told: per turn the probability that the goal was told; empty where that does not decide.
        since: first turn that a plan was made for it, None while it is pending (and for what is to be avoided).
    """

    similarities: tuple[float | None, ...]
    outcome: str | None
    settled: int | None
    reached: int | None
    told: tuple[float | None, ...] = ()
    since: int | None = None

    @property
    def status(self) -> str:
        """Where the goal is in its life: `pending`, `active`, or its outcome."""
        return self.outcome or ("pending" if self.since is None else "active")

    @property
    def best(self) -> float | None:
        """The greatest of what decides, probability or similarity, of all turns; None where there is none."""
        return max((value for value in self.values if value is not None), default=None)

    @property
    def values(self) -> tuple[float | None, ...]:
        """What decides, per turn: the probabilities where there are any, else the similarities."""
        return self.told or self.similarities


@dataclass(frozen=True)
class GoalProgress:
    """One goal in both arms.

    Attributes:
        character, name: id and name of whose goal it is.
        goal, kind, text, by_turn: of the goal; `by_turn` is the run's last turn where the scenario gives none.
        guided: its curve in the guided arm.
        unguided: in the baseline, None where the run has none (or not yet).
    """

    character: str
    name: str
    goal: str
    kind: str
    text: str
    by_turn: int
    guided: Curve
    unguided: Curve | None


@dataclass(frozen=True)
class Progress:
    """All goals of a run, with the figures that they share.

    Attributes:
        title, turns: of the run.
        threshold: from which a goal's values (`Curve.values`) count.
        goals: in the scenario's order.
        told: whether the values are probabilities that a goal was told, rather than similarities.
    """

    title: str
    turns: int
    threshold: float
    goals: tuple[GoalProgress, ...]
    told: bool = False


def read_progress(run: Path) -> Progress:
    """Read the figures of a run, finished or not.

    Raises:
        RunNotFound: there is no run, or nothing was written yet.
        RunDamaged: its logs were changed.
    """
    run = expect_path(run, "run")
    logs = logs_of(run, read_manifest(run))
    guided = logs["guided"].events
    if not guided:
        raise RunNotFound(f"nothing was written in {run} yet; go on with `steer resume {run}`")
    opening = guided[0]
    assert isinstance(opening, OpeningEvent)
    baseline = logs["unguided"].events if "unguided" in logs else ()
    goals = tuple(
        GoalProgress(
            character=info.character,
            name=info.name,
            goal=info.goal,
            kind=info.kind,
            text=info.text,
            by_turn=info.by_turn,
            guided=_curve(guided, info, opening),
            unguided=_curve(baseline, info, opening) if baseline else None,
        )
        for info in opening.goals
    )
    threshold = opening.threshold if opening.told is None else opening.told
    return Progress(opening.title, opening.turns, threshold, goals, opening.told is not None)


def _curve(events: Sequence[Event], info: GoalInfo, opening: OpeningEvent) -> Curve:
    key = goal_key(info.character, info.goal)
    turns = [event for event in events if isinstance(event, TurnEvent)]
    settled = [e for e in events if isinstance(e, GoalEvent) and (e.character, e.goal) == (info.character, info.goal)]
    return Curve(
        similarities=tuple(turn.similarities.get(key) for turn in turns),
        told=() if opening.told is None else tuple(turn.told.get(key) for turn in turns),
        outcome=settled[0].outcome if settled else None,
        settled=settled[0].turn if settled else None,
        reached=next((turn.turn for turn in turns[: info.by_turn] if is_met(key, turn, opening)), None),
        since=next((t.turn for t in turns if t.character == info.character and t.plan.goal == info.goal), None),
    )
