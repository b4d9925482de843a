"""What a run looks like on a terminal: both arms side by side, turn by turn, with the goals before and after."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agents.cli._console import shown

NARROW = 70  # columns, below which two texts do not fit beside each other


@dataclass
class Arm:
    """What has happened in one arm: its turns by number, goals that were settled, and whether it is through."""

    turns: dict[int, Any] = field(default_factory=dict)
    settled: list[Any] = field(default_factory=list)
    ended: bool = False

    def add(self, event: Any) -> None:
        """Take in a turn, goal or end event."""
        if event.type == "turn":
            self.turns[event.turn] = event
        elif event.type == "goal":
            self.settled.append(event)
        elif event.type == "end":
            self.ended = True

    def is_past(self, turn: int) -> bool:
        """Whether nothing more can come of that turn."""
        return self.ended or any(number > turn for number in self.turns)


@final
class Stage:
    """Listens to a run's events and prints them, a turn as soon as every arm is through with it.

    Args:
        console: where to.
        arms: names of the arms in the order of the columns, `("guided", "unguided")` or the first alone.
    """

    def __init__(self, console: Console, arms: Sequence[str]) -> None:
        self.console = console
        self.arms = {name: Arm() for name in arms}
        self._opening: Any = None
        self._next = 1

    def __call__(self, event: Any, arm: str) -> None:
        """Take in one event of one arm; signature of `on_event`."""
        if event.type == "opening":
            if self._opening is None:
                self._show_opening(event)
            return
        self.arms[arm].add(event)
        while all(found.is_past(self._next) for found in self.arms.values()) and self._has(self._next):
            self._show_turn(self._next)
            self._next += 1

    def _has(self, turn: int) -> bool:
        return any(turn in arm.turns for arm in self.arms.values())

    def _show_opening(self, event: Any) -> None:
        self._opening = event
        if event.goals:
            table = Table(
                "character", "wants, or wants to avoid", "by turn", title="Hidden goals: the model never reads them"
            )
            for goal in event.goals:
                table.add_row(shown(goal.name), _goal_text(goal), str(goal.by_turn))
            self.console.print(table)
        self.console.print(Panel(shown(event.text), title=shown(event.title or event.scenario), subtitle="opening"))

    def _show_turn(self, turn: int) -> None:
        columns = []
        for name, arm in self.arms.items():
            event = arm.turns.get(turn)
            columns.append(
                (name, Text("(the story has ended)", style="dim") if event is None else _turn_text(arm, event))
            )
        actor = next(arm.turns[turn].name for arm in self.arms.values() if turn in arm.turns)
        self.console.rule(shown(f"turn {turn}: {actor}"))
        if self.console.width < NARROW or len(columns) == 1:
            for name, text in columns:
                if len(columns) > 1:
                    self.console.print(Text(name, style="bold"))
                self.console.print(text)
            return
        table = Table.grid(expand=True, padding=(0, 2))
        for _ in columns:
            table.add_column(ratio=1)
        table.add_row(*(Text(name, style="bold") for name, _ in columns))
        table.add_row(*(text for _, text in columns))
        self.console.print(table)


def _turn_text(arm: Arm, event: Any) -> Text:
    text = shown((event.cue + event.text).strip())
    for outcome in arm.settled:
        if outcome.turn == event.turn and outcome.outcome != "kept":
            good = outcome.outcome == "reached"
            text.append(f"\n{outcome.outcome}: {outcome.character}/{outcome.goal}", style="green" if good else "red")
    return text


def _goal_text(goal: Any) -> Text:
    return shown(f"avoid: {goal.text}" if goal.kind == "avoid" else goal.text)


def goal_table(goals: Sequence[Any]) -> Table:
    """What became of the goals (`agents.simulation.progress.GoalProgress`), in each arm that was played."""
    arms = ["guided"] + (["unguided"] if any(goal.unguided is not None for goal in goals) else [])
    table = Table("character", "goal", *arms, title="What became of the goals")
    for goal in goals:
        table.add_row(shown(goal.name), _goal_text(goal), *(_outcome(getattr(goal, arm)) for arm in arms))
    return table


def _outcome(curve: Any) -> Text:
    best = "" if curve.best is None else f" ({'told' if curve.told else 'nearest'} {curve.best:.2f})"
    if curve.outcome is None:
        since = "" if curve.since is None else f" since turn {curve.since}"
        return Text(f"{curve.status}{since}{best}", style="yellow")
    style = "red" if curve.outcome == "failed" else "green"
    return Text(f"{curve.outcome}, turn {curve.settled}{best}", style=style)
