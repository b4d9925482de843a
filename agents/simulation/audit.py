"""The audit: proof from a run's files that nothing but the story was ever fed to the model.

It trusts no event: what each turn must have been fed is rebuilt from the opening and all that was written, and compared
by hash with what the writer reported. The rest of what the files say is compared with the scenario, with each other and
with the logs, see `agents.simulation.consistency`. With the model, texts are compared with their tokens, and a replay
writes every turn again from the log. What lies in the folder and was not looked at is named.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agents.arguments import expect, expect_path
from agents.characters.goals import GoalBook
from agents.errors import AgentsError, ArgumentError
from agents.index.scenario_roadmap import reopen_roadmap
from agents.log.chain import LogContents, read_log
from agents.log.events import EndEvent, Event, OpeningEvent, TurnEvent, hash_ids
from agents.scenarios.schema import Scenario
from agents.simulation.consistency import (
    check_arms,
    check_manifest,
    check_opening,
    check_transcript,
    left_out,
)
from agents.simulation.manifest import LOGS, STORE, TRANSCRIPT, Arm, Manifest, check_model, read_manifest, read_scenario
from agents.simulation.state import ArmState
from agents.simulation.turn import arm_scenario, open_story, write_turn
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.quotations import shared_words
from vectorstore import VectorStoreError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `detail` says what was found, and where."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class AuditReport:
    """All checks; `ok` if none failed."""

    ok: bool
    checks: tuple[Check, ...]


def audit_run(run: Path, *, model: LatentModel | None = None, replay: bool = False) -> AuditReport:
    """Audit a run, finished or stopped. Changes nothing.

    Args:
        run: its folder.
        model: the one that it was made with; without it, texts are not compared with their tokens.
        replay: write every turn again and compare all of it; needs the model, and as long as the run took.

    Raises:
        RunNotFound: there is no run.
        RunDamaged: its manifest cannot be read.
        ArgumentError: a replay without a model, or an argument of a wrong type.
    """
    run = expect_path(run, "run")
    if model is not None:
        expect(model, LatentModel, "model")
    elif replay:
        raise ArgumentError("a replay writes the turns again, so it needs the model; pass model=, or replay=False")
    checks = tuple(_checks(run, read_manifest(run), model, replay))
    return AuditReport(all(check.ok for check in checks), checks)


def _checks(run: Path, manifest: Manifest, model: LatentModel | None, replay: bool) -> Iterator[Check]:
    try:
        scenario = read_scenario(run, manifest)
    except (AgentsError, ValueError) as error:
        yield Check("scenario", False, str(error))
        return
    yield Check("scenario", True, f"{scenario.id}, as it was when the run was started")
    arms = ", ".join(manifest.arms)
    yield _check("manifest", check_manifest(run, manifest, scenario), f"of this scenario; arms: {arms}")
    if manifest.finished is not None:
        changed = manifest.changed_logs(run)
        missing = sorted({LOGS[arm] for arm in manifest.arms} ^ manifest.logs.keys())
        bad = changed + missing
        yield Check(
            "seal", not bad, f"changed after the end: {', '.join(bad)}" if bad else "logs as they were at the end"
        )
    if model is not None:
        try:
            check_model(manifest, model)
            yield Check("model", True, f"{manifest.model.get('name')}, as it was")
        except AgentsError as error:
            yield Check("model", False, str(error))
            return
    states: dict[Arm, ArmState] = {}
    for arm in manifest.arms:
        try:
            log = read_log(run / LOGS[arm])
        except AgentsError as error:
            yield Check(f"{arm}: chain", False, str(error))
            continue
        yield Check(f"{arm}: chain", True, _describe(log, manifest))
        played = arm_scenario(scenario, arm)
        with contextlib.suppress(AgentsError):  # which the check of the order tells
            states[arm] = ArmState.of(played, log.events)
        yield _check(
            f"{arm}: opening", check_opening(played, manifest, log.events), "the first event says what was played"
        )
        yield _check(f"{arm}: order", _order(played, manifest, log.events), f"{len(log.events)} events in order")
        yield _check(f"{arm}: context", _context(log.events), "every context is the opening and what was written")
        yield _check(f"{arm}: goals unseen", _unseen(played, log.events), "no goal's words in the opening or a cue")
        if model is not None:
            yield _check(f"{arm}: text", _text(played, model, log.events), "texts and tokens agree")
            yield _check(
                f"{arm}: store",
                _store(run, played, manifest, model, log.events, replay),
                "goals as they were, every turn written again alike" if replay else "goals as they were at the start",
            )
    fine = "played turn by turn" if len(manifest.arms) > 1 else "no baseline"
    yield _check("arms", check_arms(states, manifest), fine)
    fine = "what the logs give" if (run / TRANSCRIPT).exists() else "none yet"
    yield _check("transcript", check_transcript(run, manifest), fine)
    yield Check("files", True, left_out(run, manifest))


def _check(name: str, problems: Iterator[str], fine: str) -> Check:
    """A check that fails with the first problem, and fails rather than raises where a log makes no sense."""
    try:
        problem = next(problems, None)
    except (AgentsError, VectorStoreError, ValueError, OverflowError, KeyError, IndexError, TypeError) as error:
        problem = str(error)
    return Check(name, problem is None, problem or fine)


def _describe(log: LogContents, manifest: Manifest) -> str:
    detail = f"{len(log.events)} events in one chain"
    if log.torn:
        detail += f"; {log.torn} bytes of a half-written line are ignored"
    if manifest.finished is None:
        detail += "; the run is not finished"
    return detail


def _order(scenario: Scenario, manifest: Manifest, events: tuple[Event, ...]) -> Iterator[str]:
    """Events follow from each other: settled goals and the end come just where the state makes them due."""
    state = ArmState(scenario)
    for event in events:
        if state.opening is not None and not isinstance(event, TurnEvent) and event != state.due():
            yield f"after turn {state.turn}: an event of type {event.type!r} that does not follow from those before"
        if isinstance(event, TurnEvent):
            if state.due() is not None:
                yield f"turn {event.turn}: something was due before it that is missing"
            speaker = scenario.speaker(event.turn)
            if event.name != speaker.name:
                yield f"turn {event.turn}: its name is {event.name!r}, the scenario's is {speaker.name!r}"
            if event.seed != derive_seed(scenario.seed, "turn", event.turn, speaker.id):
                yield f"turn {event.turn}: its seed does not follow from the scenario's"
        state.apply(event)
    if manifest.finished is not None and not state.ended:
        yield f"the manifest says finished, but the log stops after turn {state.turn}"


def _context(events: tuple[Event, ...]) -> Iterator[str]:
    """What was fed is the last `max_context` ids of opening + cues + what was written before."""
    visible: list[int] = []
    max_context = 0
    for event in events:
        match event:
            case OpeningEvent():
                visible, max_context = list(event.ids), event.max_context
            case TurnEvent():
                visible += event.cue_ids
                fed = visible[-max_context:]
                if (event.context_tokens, event.context_sha256) != (len(fed), hash_ids(fed)):
                    yield (
                        f"turn {event.turn}: {event.context_tokens} tokens with SHA-256 {event.context_sha256[:12]}... "
                        f"were fed; the visible text gives {len(fed)} with {hash_ids(fed)[:12]}..."
                    )
                visible += event.ids
                if (event.visible_tokens, event.visible_sha256) != (len(visible), hash_ids(visible)):
                    yield f"turn {event.turn}: the visible tokens after it are not those that it recorded"
            case EndEvent():
                if (event.visible_tokens, event.visible_sha256) != (len(visible), hash_ids(visible)):
                    yield "the visible tokens at the end are not those that were recorded"
            case _:
                pass


def _unseen(scenario: Scenario, events: tuple[Event, ...]) -> Iterator[str]:
    """Opening and cues are the scenario's, and hold no run of words of any goal."""
    for event in events:
        if isinstance(event, OpeningEvent) and event.text != scenario.opening:
            yield "the opening is not the scenario's"
        if isinstance(event, TurnEvent) and event.cue != scenario.cue(scenario.speaker(event.turn)):
            yield f"turn {event.turn}: the cue {event.cue!r} is not the scenario's"
        visible = event.text if isinstance(event, OpeningEvent) else event.cue if isinstance(event, TurnEvent) else ""
        for character, goal in scenario.goals():
            if words := shared_words(goal.text, visible):
                yield f"the words {words!r} of goal {goal.id!r} of {character.id!r} stand in {visible[:40]!r}"


def _text(scenario: Scenario, model: LatentModel, events: tuple[Event, ...]) -> Iterator[str]:
    """Opening and cues are tokenised as the model does it, texts are what the ids say, no special token is visible."""
    special = set(model.tokenizer.all_special_ids)
    for event in events:
        match event:
            case OpeningEvent():
                if list(event.ids) != model.to_ids(event.text):
                    yield "the opening's tokens are not those of its text"
            case TurnEvent():
                if list(event.cue_ids) != model.to_ids(event.cue):
                    yield f"turn {event.turn}: the cue's tokens are not those of its text"
                cue = model.to_text(event.cue_ids)
                if event.text != model.to_text([*event.cue_ids, *event.ids])[len(cue) :]:
                    yield f"turn {event.turn}: the text is not what its tokens say"
                if special & {*event.cue_ids, *event.ids}:
                    yield f"turn {event.turn}: a special token stands in the visible text"
            case _:
                pass


def _store(
    run: Path, scenario: Scenario, manifest: Manifest, model: LatentModel, events: tuple[Event, ...], replay: bool
) -> Iterator[str]:
    """The store holds the opening event's goals; with a replay, each turn is written again from the events before."""
    if not events:
        return
    try:
        book = GoalBook.load(scenario, model, run / STORE)
    except AgentsError as error:
        yield str(error)
        return
    with book, reopen_roadmap(scenario, model, manifest.index) as roadmap:
        if events[0] != open_story(scenario, model, book, manifest):
            yield "the opening event does not follow from scenario, model and store"
        state = ArmState(scenario)
        for event in events if replay else ():
            if isinstance(event, TurnEvent):
                again = write_turn(scenario, model, book, state, roadmap=roadmap)
                different = [name for name in TurnEvent.model_fields if getattr(again, name) != getattr(event, name)]
                if different:
                    yield f"turn {event.turn}: written again it differs in {', '.join(different)}"
            state.apply(event)
