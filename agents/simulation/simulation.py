"""Playing a scenario: turns in a loop, each on the disk before it is reported; stopped anywhere, resumed exactly."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.arguments import expect, expect_path
from agents.characters.goal_queries import resolve_wishes
from agents.characters.goals import GoalBook, check_texts
from agents.characters.memory import Recollection
from agents.errors import RunDamaged, RunExists, RunWriteError
from agents.index.roadmap import Roadmap
from agents.index.scenario_roadmap import open_roadmap, reopen_roadmap
from agents.log.chain import EventLog, write_atomic
from agents.log.events import Event, TurnEvent
from agents.scenarios.schema import Scenario, override
from agents.simulation.manifest import (
    LOGS,
    SCENARIO,
    STORE,
    TRANSCRIPT,
    Arm,
    Manifest,
    add_timing,
    check_model,
    logs_of,
    make_manifest,
    read_manifest,
    read_scenario,
    total_seconds,
)
from agents.simulation.progress import GoalProgress, read_progress
from agents.simulation.state import ArmState
from agents.simulation.transcript import render_transcript
from agents.simulation.turn import arm_scenario, open_story, write_turn
from steer.files import sync_folder
from steer.models.latent_model import LatentModel

logger = logging.getLogger(__name__)

OnEvent = Callable[[Event, str], None]


@dataclass(frozen=True)
class RunSummary:
    """How a run went.

    Attributes:
        path: its folder.
        status: `finished`; or `unchanged`, when it was to be resumed but had been finished before.
        turns: played in the guided arm.
        goals: for each goal its curves in both arms; `goal.guided.reached` is the turn in which it was reached, or
            None, `goal.guided.best` its greatest similarity; the same in `goal.unguided`, None without a baseline.
        tokens: computed in all arms, drafts included.
        seconds: for all turns of all arms, earlier parts of a resumed run included.
    """

    path: Path
    status: Literal["finished", "unchanged"]
    turns: int
    goals: tuple[GoalProgress, ...]
    tokens: int
    seconds: float


def run_scenario(
    scenario: Scenario,
    model: LatentModel,
    out: Path,
    *,
    seed: int | None = None,
    turns: int | None = None,
    baseline: bool = True,
    on_event: OnEvent | None = None,
) -> RunSummary:
    """Play a scenario into a new folder: the guided arm and its unguided baseline, turn by turn.

    Args:
        scenario: what to play.
        model: writes and encodes.
        out: folder for the run; must not exist, or be empty.
        seed: instead of the scenario's.
        turns: instead of the scenario's; later deadlines move to the new last turn.
        baseline: play the same scenario and seed without any pull as well, for comparison. A scenario whose method is
            `unguided` has no baseline.
        on_event: called with each event and its arm (`guided` or `unguided`), once the event is on the disk. What it
            raises stops the run, which can then be resumed.

    Raises:
        RunExists: `out` holds something already.
        GoalError: this model cannot use a goal, a voice, a name or the opening; or a wish finds no goals.
        VectorStoreError: an index of the scenario is not there, or is of another encoder.
        ScenarioError: `seed` or `turns` is out of range.
        RunWriteError: the disk refused; what was reported is safe.
        ArgumentError: an argument is of a wrong type.
    """
    expect(scenario, Scenario, "scenario", how="load_scenario(PATH) reads one")
    expect(model, LatentModel, "model", how="LatentModel.from_pretrained(FOLDER) loads one")
    out = expect_path(out, "out")
    scenario = resolve_wishes(override(scenario, seed=seed, turns=turns), model)
    check_texts(scenario, model)
    _make_folder(out)
    arms: tuple[Arm, ...] = (
        ("guided", "unguided") if baseline and scenario.planner.method != "unguided" else ("guided",)
    )
    with open_roadmap(scenario, model) as roadmap, GoalBook.create(scenario, model, out / STORE) as book:
        write_atomic(out / SCENARIO, scenario.to_yaml())
        manifest = make_manifest(scenario, model, arms, index=None if roadmap is None else roadmap.identity)
        # The manifest comes last: a folder that has one can be resumed.
        manifest.save(out)
        return _play(out, scenario, manifest, model, book, roadmap, on_event)


def resume_run(run: Path, model: LatentModel, *, on_event: OnEvent | None = None) -> RunSummary:
    """Go on with a run that was stopped; its logs become the same, byte for byte, as if it had not been.

    Args:
        run: its folder. A finished one is left as it is, and the summary's status says `unchanged`.
        model: the one that it was started with.
        on_event: see `run_scenario`; called for new events only.

    Raises:
        RunNotFound: there is no run.
        RunMismatch: it was started with another model or index, or its scenario was changed.
        RunDamaged: its files were changed.
        RunBusy: another process is writing it.
        RunWriteError: the disk refused; what was reported is safe.
        ArgumentError: an argument is of a wrong type.
    """
    run = expect_path(run, "run")
    expect(model, LatentModel, "model", how="LatentModel.from_pretrained(FOLDER) loads one")
    manifest = read_manifest(run)
    scenario = read_scenario(run, manifest)
    check_model(manifest, model)
    if manifest.finished is not None:
        if changed := manifest.changed_logs(run):
            raise RunDamaged(f"{run / changed[0]} was changed after the run was finished; see `steer audit {run}`")
        logger.info("%s was finished at %s; nothing to resume", run, manifest.finished)
        return _summarise(run, manifest, "unchanged")
    roads = reopen_roadmap(scenario, model, manifest.index)
    with roads as roadmap, GoalBook.load(scenario, model, run / STORE) as book:
        return _play(run, scenario, manifest, model, book, roadmap, on_event)


def _play(
    run: Path,
    scenario: Scenario,
    manifest: Manifest,
    model: LatentModel,
    book: GoalBook,
    roadmap: Roadmap | None,
    on_event: OnEvent | None,
) -> RunSummary:
    recollection = Recollection(model)

    def next_event(played: Scenario, state: ArmState) -> Event:
        if state.opening is None:
            return open_story(played, model, book, manifest)
        due = state.due()
        return due or write_turn(played, model, book, state, roadmap=roadmap, recollection=recollection)

    with contextlib.ExitStack() as stack:
        stages = []
        for arm in manifest.arms:
            log = stack.enter_context(EventLog(run / LOGS[arm]))
            state = ArmState.of(arm_scenario(scenario, arm), log.events)
            _check_goals(state, book, log)
            stages.append((arm, arm_scenario(scenario, arm), log, state))
        # Turn by turn in all arms, so that whoever watches can compare while it runs. The arms share nothing.
        for turn in range(1, scenario.turns + 1):
            for arm, played, log, state in stages:
                while not state.ended and (state.turn < turn or state.due() is not None):
                    _step(run, arm, lambda played=played, state=state: next_event(played, state), log, state, on_event)
    write_atomic(run / TRANSCRIPT, render_transcript(run))
    return _summarise(run, manifest.seal(run), "finished")


def _step(
    run: Path,
    arm: Arm,
    make: Callable[[], Event],
    log: EventLog,
    state: ArmState,
    on_event: OnEvent | None,
) -> None:
    """Play one event of an arm: on the disk first, then in the state, then reported."""
    began = time.monotonic()
    event = make()
    log.append([event])
    state.apply(event)
    if isinstance(event, TurnEvent):
        add_timing(run, arm, event.turn, time.monotonic() - began)
    if on_event is not None:
        on_event(event, arm)


def _check_goals(state: ArmState, book: GoalBook, log: EventLog) -> None:
    if state.opening is not None and state.opening.goals != book.infos():
        raise RunDamaged(
            f"the goals in the store are not those that {log.path} started with; one of the two was changed"
        )


def _make_folder(out: Path) -> None:
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            hint = f"go on with it: `steer resume {out}`, or give another folder"
            if not out.is_dir():
                hint = "give a folder that does not exist yet"
            raise RunExists(f"{out} exists and is not empty; expected a new folder for the run: {hint}")
        out.mkdir(parents=True, exist_ok=True)
        try:
            (out / SCENARIO).open("x").close()  # claims the folder before others that found it empty too
        except FileExistsError:
            raise RunExists(f"{out} was taken by another run just now; give another folder") from None
        sync_folder(out.parent)
    except RunExists:
        raise
    except OSError as error:
        raise RunWriteError(f"cannot make the folder {out}: {error.strerror}") from error


def _summarise(run: Path, manifest: Manifest, status: Literal["finished", "unchanged"]) -> RunSummary:
    turns = {
        arm: [event for event in log.events if isinstance(event, TurnEvent)]
        for arm, log in logs_of(run, manifest).items()
    }
    return RunSummary(
        path=run,
        status=status,
        turns=len(turns["guided"]),
        goals=read_progress(run).goals,
        tokens=sum(event.tokens for events in turns.values() for event in events),
        seconds=total_seconds(run),
    )
