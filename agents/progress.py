"""How near each goal came, turn by turn, in both arms: read from the logs alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.errors import RunNotFound
from agents.events import Event, GoalEvent, GoalInfo, OpeningEvent, TurnEvent
from agents.manifest import logs_of, read_manifest
from agents.scenario import goal_key


@dataclass(frozen=True)
class Curve:
    """One goal in one arm.

    Attributes:
        similarities: one per turn, from turn 1; None where nothing was written.
        outcome: `reached`, `failed`, `kept` (an avoided one that did not come up), or None while it is open.
        settled: turn in which that was settled.
        reached: first turn, up to the deadline, whose similarity is at least the threshold, or None. For an avoided
            goal that is the turn in which it came up.
    """

    similarities: tuple[float | None, ...]
    outcome: str | None
    settled: int | None
    reached: int | None

    @property
    def best(self) -> float | None:
        """The greatest similarity of all turns; None where there is none."""
        return max((s for s in self.similarities if s is not None), default=None)


@dataclass(frozen=True)
class GoalProgress:
    """One goal in both arms.

    Attributes:
        character, name: id and name of whose goal it is.
        goal, kind, text, by_turn: of the goal; `by_turn` is the run's last turn where the scenario gives none.
        guided: its curve in the guided arm.
        unguided: in the twin, None where the run has none (or not yet).
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
    """All goals of a run, with the figures that they share."""

    title: str
    turns: int
    threshold: float
    goals: tuple[GoalProgress, ...]


def read_progress(run: Path) -> Progress:
    """Read the figures of a run, finished or not.

    Raises:
        RunNotFound: there is no run, or nothing was written yet.
        RunDamaged: its logs were changed.
    """
    run = Path(run)
    logs = logs_of(run, read_manifest(run))
    guided = logs["guided"].events
    if not guided:
        raise RunNotFound(f"nothing was written in {run} yet; go on with `steer resume {run}`")
    opening = guided[0]
    assert isinstance(opening, OpeningEvent)
    twin = logs["unguided"].events if "unguided" in logs else ()
    goals = tuple(
        GoalProgress(
            character=info.character,
            name=info.name,
            goal=info.goal,
            kind=info.kind,
            text=info.text,
            by_turn=info.by_turn,
            guided=_curve(guided, info, opening.threshold),
            unguided=_curve(twin, info, opening.threshold) if twin else None,
        )
        for info in opening.goals
    )
    return Progress(opening.title, opening.turns, opening.threshold, goals)


def _curve(events: Sequence[Event], info: GoalInfo, threshold: float) -> Curve:
    key = goal_key(info.character, info.goal)
    similarities = tuple(event.similarities.get(key) for event in events if isinstance(event, TurnEvent))
    settled = [e for e in events if isinstance(e, GoalEvent) and (e.character, e.goal) == (info.character, info.goal)]
    in_time = enumerate(similarities[: info.by_turn], start=1)
    return Curve(
        similarities=similarities,
        outcome=settled[0].outcome if settled else None,
        settled=settled[0].turn if settled else None,
        reached=next((turn for turn, s in in_time if s is not None and s >= threshold), None),
    )
