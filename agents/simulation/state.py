"""The state of one arm of a run, folded from its events: what is visible, which goals are active or settled.

There is no other state. A run that is resumed folds its log, and stands where it stood.
"""

from collections.abc import Iterable
from typing import Self, final

from agents.characters.memory import Episode
from agents.errors import RunDamaged
from agents.log.events import EndEvent, Event, GoalEvent, OpeningEvent, TurnEvent, hash_ids
from agents.scenarios.schema import Character, Goal, Scenario, goal_key
from agents.simulation.reached import is_met


@final
class ArmState:
    """Fold of the events of one arm.

    Attributes:
        scenario: what is played.
        opening: the opening event, once there.
        visible: token ids of all visible text.
        turn: the last turn, 0 before the first.
        active: for each character its active goal and the turn since which it is; absent where there is none.
        episodes: the turns so far, as memories are made of them.
        outcomes: how each settled goal ended, by `character/goal`.
        ended: whether the arm is complete.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.opening: OpeningEvent | None = None
        self.visible: list[int] = []
        self.turn = 0
        self.episodes: list[Episode] = []
        self.active: dict[str, tuple[str, int]] = {}
        self.outcomes: dict[str, str] = {}
        self.ended = False
        self._last: TurnEvent | None = None

    @classmethod
    def of(cls, scenario: Scenario, events: Iterable[Event]) -> Self:
        """The state after these events.

        Raises:
            RunDamaged: they are in an impossible order.
        """
        state = cls(scenario)
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Take one more event in.

        Raises:
            RunDamaged: it cannot follow those before it.
        """
        if self.ended or (self.opening is None) != isinstance(event, OpeningEvent):
            raise RunDamaged(f"a log cannot go on with an event of type {event.type!r} here; it was changed")
        match event:
            case OpeningEvent():
                self.opening = event
                self.visible = list(event.ids)
            case TurnEvent():
                if event.turn != self.turn + 1 or event.character != self.scenario.speaker(event.turn).id:
                    raise RunDamaged(f"turn {event.turn} of {event.character!r} cannot follow turn {self.turn}")
                self.turn = event.turn
                ids = (*event.cue_ids, *event.ids)
                self.episodes.append(Episode(event.turn, event.character, len(self.visible), ids, event.similarities))
                self.visible += [*event.cue_ids, *event.ids]
                self._last = event
                if event.plan.goal is not None and event.plan.since is not None:
                    self.active[event.character] = (event.plan.goal, event.plan.since)
            case GoalEvent():
                self.outcomes[goal_key(event.character, event.goal)] = event.outcome
                if self.active.get(event.character, ("", 0))[0] == event.goal:
                    del self.active[event.character]
            case EndEvent():
                self.ended = True

    def settled(self, character: Character) -> set[str]:
        """Ids of a character's goals that are settled."""
        return {goal.id for goal in character.goals if goal_key(character.id, goal.id) in self.outcomes}

    def due(self) -> Event | None:
        """The event that follows from what is there, without anything being written: a goal to settle, or the end."""
        if self._last is None or self.opening is None or self.ended:
            return None
        story_over = self._last.ended and self.scenario.stop_at_end
        for character, goal in self.scenario.goals():
            if goal_key(character.id, goal.id) not in self.outcomes:
                over = story_over or self.turn >= self.scenario.deadline(goal)
                if event := _settle(character, goal, self._last, self.opening, over):
                    return event
        if story_over or self.turn >= self.scenario.turns:
            return EndEvent(
                turns=self.turn,
                reason="story" if story_over else "turns",
                visible_tokens=len(self.visible),
                visible_sha256=hash_ids(self.visible),
            )
        return None


def _settle(character: Character, goal: Goal, turn: TurnEvent, opening: OpeningEvent, over: bool) -> GoalEvent | None:
    """A terminal is reached, or an avoided one came up, in whoever's turn it is; else both last to their deadline."""
    key = goal_key(character.id, goal.id)
    met = is_met(key, turn, opening)
    if not met and not over:
        return None
    terminal = goal.kind == "terminal"
    return GoalEvent(
        turn=turn.turn,
        character=character.id,
        goal=goal.id,
        kind=goal.kind,
        outcome="reached" if met and terminal else "failed" if met or terminal else "kept",
        similarity=turn.similarities.get(key),
        told=turn.told.get(key),
    )
