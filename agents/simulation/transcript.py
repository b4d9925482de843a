"""A run as Markdown for readers, made from its logs alone."""

from collections.abc import Sequence
from pathlib import Path

from agents.arguments import expect_path
from agents.errors import RunNotFound
from agents.log.events import EndEvent, Event, GoalEvent, OpeningEvent, TurnEvent
from agents.simulation.manifest import logs_of, read_manifest
from steer.displayed import markdown_line, markdown_text

_HEADINGS = {"guided": "With goals", "unguided": "The same without goals"}
_OUTCOMES = {"reached": "reached", "failed": "failed", "kept": "kept away"}


def render_transcript(run: Path) -> str:
    """The transcript of a run, finished or not, as Markdown.

    The visible text is whole and in order. Notes on goals stand between the turns, as quotations; the model never saw
    them.

    Raises:
        RunNotFound: there is no run, or nothing was written yet.
        RunDamaged: its logs were changed.
    """
    run = expect_path(run, "run")
    logs = {arm: log.events for arm, log in logs_of(run, read_manifest(run)).items() if log.events}
    if not logs:
        raise RunNotFound(f"nothing was written in {run} yet; go on with `steer resume {run}`")
    opening = logs["guided"][0]
    assert isinstance(opening, OpeningEvent)
    blocks = [f"# {markdown_line(opening.title)}", f"Scenario {markdown_line(opening.scenario)}, seed {opening.seed}."]
    blocks += [
        f"> {markdown_line(goal.name)} {'wants' if goal.kind == 'terminal' else 'avoids'} "
        f"({markdown_line(goal.goal)}, by turn {goal.by_turn}): {markdown_line(goal.text)}"
        for goal in opening.goals
    ]
    for arm, events in logs.items():
        if len(logs) > 1:
            blocks.append(f"## {_HEADINGS[arm]}")
        blocks += _arm(events)
    return "\n\n".join(blocks) + "\n"


def _arm(events: Sequence[Event]) -> list[str]:
    blocks: list[str] = []
    script = False
    names: dict[str, str] = {}
    for event in events:
        match event:
            case OpeningEvent():
                script = event.format == "script"
                names = {goal.character: goal.name for goal in event.goals}
                blocks.append(markdown_text(event.text))
            case TurnEvent():
                written = event.text.strip() if script else event.text.rstrip()
                told = f"**{markdown_line(event.name)}:** {markdown_text(written)}"
                blocks.append(told if script else markdown_text(event.name + written))
            case GoalEvent():
                figure = "" if event.similarity is None else f" (similarity {event.similarity:.2f})"
                if event.told is not None:
                    figure = f" (told with probability {event.told:.2f})"
                blocks.append(
                    f"> Turn {event.turn}: {markdown_line(names[event.character])}, {markdown_line(event.goal)}: "
                    f"{_OUTCOMES[event.outcome]}{figure}"
                )
            case EndEvent():
                reason = "the story ended" if event.reason == "story" else f"{event.turns} turns"
                blocks.append(f"*End: {reason}.*")
    return blocks
