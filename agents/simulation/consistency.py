"""What the files of a run say, compared with its scenario and with each other; all of it without the model.

Each check yields the problems that it finds, one line each.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from agents.log.events import Event, OpeningEvent
from agents.scenarios.schema import Scenario
from agents.simulation.manifest import LOGS, MANIFEST, SCENARIO, STORE, TRANSCRIPT, Arm, Manifest
from agents.simulation.state import ArmState
from agents.simulation.transcript import render_transcript
from steer.files import read_plain


def check_manifest(run: Path, manifest: Manifest, scenario: Scenario) -> Iterator[str]:
    """What the manifest repeats of the scenario, and logs that it does not know."""
    for name, expected in {"scenario": scenario.id, "seed": scenario.seed, "turns": scenario.turns}.items():
        if (found := getattr(manifest, name)) != expected:
            yield f"{name} is {found!r}, the scenario has {expected!r}"
    if len(manifest.arms) > 1 and scenario.planner.method == "unguided":
        yield "an unguided scenario has no baseline"
    for arm, name in LOGS.items():
        if arm not in manifest.arms and (run / name).exists():
            yield f"there is {name}, which the manifest does not know"


def check_opening(scenario: Scenario, manifest: Manifest, events: tuple[Event, ...]) -> Iterator[str]:
    """The opening event holds what scenario and manifest say; what needs the model is compared with the store."""
    if not events:
        if scenario.planner.method == "unguided" and len(manifest.arms) > 1:
            return  # the baseline begins after the guided arm's first turn, see `check_arms`
        yield "the log is empty: there is nothing to audit"
        return
    event = events[0]
    if not isinstance(event, OpeningEvent):
        yield f"the first event is of type {event.type!r}"
        return
    expected = {
        "scenario": scenario.id,
        "title": scenario.title or scenario.id,
        "format": scenario.format,
        "method": scenario.planner.method,
        "arms": manifest.arms,
        "seed": scenario.seed,
        "turns": scenario.turns,
        "text": scenario.opening,
        "threshold": manifest.threshold,
        "told": manifest.told,
    }
    for name, value in expected.items():
        if (found := getattr(event, name)) != value:
            yield f"{name} is {found!r}, expected {value!r}"
    found = [(g.character, g.name, g.goal, g.kind, g.text, g.weight, g.by_turn) for g in event.goals]
    if found != [(c.id, c.name, g.id, g.kind, g.text, g.weight, scenario.deadline(g)) for c, g in scenario.goals()]:
        yield "its goals are not the scenario's"


def check_arms(states: Mapping[Arm, ArmState], manifest: Manifest) -> Iterator[str]:
    """The arms are played turn by turn, so neither can be further than the other by more than a turn."""
    if missing := [arm for arm in manifest.arms if arm not in states]:
        yield f"{missing[0]}: its log does not tell how far it came"
    elif len(manifest.arms) > 1:
        guided, unguided = states["guided"], states["unguided"]
        if unguided.turn < guided.turn - 1 and not unguided.ended:
            yield f"the baseline stops after turn {unguided.turn}, the guided arm after turn {guided.turn}"
        if unguided.turn > guided.turn and not guided.ended:
            yield f"the guided arm stops after turn {guided.turn}, the baseline after turn {unguided.turn}"


def check_transcript(run: Path, manifest: Manifest) -> Iterator[str]:
    """The transcript is what the logs give, byte for byte; a run that is not finished may have none."""
    try:
        found = read_plain(run / TRANSCRIPT)
    except FileNotFoundError:
        if manifest.finished is not None:
            yield f"{TRANSCRIPT} is missing"
        return
    except OSError as error:
        yield f"{TRANSCRIPT} cannot be read: {error.strerror}"
        return
    if found != render_transcript(run).encode():
        yield f"{TRANSCRIPT} is not what the logs give; it was changed"


def left_out(run: Path, manifest: Manifest) -> str:
    """What lies in the folder and was not compared with anything."""
    looked_at = {MANIFEST, SCENARIO, STORE, TRANSCRIPT, *(LOGS[arm] for arm in manifest.arms)}
    others = sorted({path.name for path in run.iterdir()} - looked_at)
    return f"not looked at: {', '.join(others)}" if others else "all were looked at"
