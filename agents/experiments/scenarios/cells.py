"""The cells of an experiment over scenarios, and what is taken of one: all that needs the model or the judge.

What a cell's numbers mean depends on all cells (the judge's threshold does), so that is left to
`agents.experiments.scenarios.measures`. Here are the parts: sentences with their similarities to every goal of the set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic

from agents.errors import RunDamaged
from agents.experiments.folder import CELLS
from agents.experiments.measures import JudgeContext
from agents.experiments.scenarios.spec import ScenarioArm, ScenarioExperiment, relation_of
from agents.experiments.seals import read_sealed, write_sealed
from agents.log.events import OpeningEvent, TurnEvent
from agents.scenarios.schema import Character, Goal, Scenario, goal_key
from agents.simulation.manifest import logs_of, read_manifest, total_seconds
from agents.simulation.progress import read_progress
from steer.evaluation.decoding import nlls
from steer.models.latent_model import LatentModel
from steer.sentences import split_sentences

DECIMALS = 4


@dataclass(frozen=True)
class ScenarioCell:
    """One unit of work: a scenario in one arm with one seed."""

    arm: ScenarioArm
    scenario: Scenario
    seed: int

    @property
    def key(self) -> str:
        """Its file name."""
        return f"{self.arm.slug}.s{self.seed}.{self.scenario.id}"

    @property
    def row(self) -> str:
        """The row of the tables that it is counted in."""
        return self.arm.name

    @property
    def label(self) -> str:
        """What it is, for people."""
        return f"{self.arm.name}, seed {self.seed}, {self.scenario.id}"

    @property
    def relation(self) -> str:
        """How its goals stand to each other."""
        return relation_of(self.scenario)

    @property
    def units(self) -> int:
        """Runs in it."""
        return 1

    @property
    def size(self) -> int:
        """How much work it is: turns."""
        return self.scenario.turns

    def file(self, folder: Path) -> Path:
        """Where what was taken of it lies in the folder of the experiment."""
        return folder / CELLS / f"{self.key}.json"


class Turn(pydantic.BaseModel, frozen=True):
    """One turn as it was written.

    Attributes:
        character: id of whose turn it was.
        text: that became visible, its cue included.
        sentences: of the text.
        similarities: of each sentence to each goal of the set, in the order of `set_goals`, by the judge; empty without
            one.
    """

    character: str
    text: str
    sentences: tuple[str, ...]
    similarities: tuple[tuple[float, ...], ...] = ()


class Measured(pydantic.BaseModel, frozen=True):
    """What is known of a cell.

    Attributes:
        cell: its key.
        turns: as they were written.
        reached: by the run's own account, for each terminal of the scenario by `character/goal`.
        base_nll: of what was written, behind what was fed, under the bare base; nats per token, None if nothing was.
        tokens, seconds: spent on it, drafts and discarded candidates included.
        judged: whether there are the judge's similarities.
    """

    cell: str
    turns: tuple[Turn, ...]
    reached: dict[str, bool]
    base_nll: float | None
    tokens: int
    seconds: float
    judged: bool


def plan_cells(
    experiment: ScenarioExperiment, scenarios: Sequence[Scenario], limit: int | None = None
) -> list[ScenarioCell]:
    """All cells, or those of the first `limit` scenarios: seed by seed, scenario by scenario, in each all arms."""
    return [
        ScenarioCell(arm, scenario, seed)
        for seed in experiment.seeds
        for scenario in scenarios[:limit]
        for arm in experiment.arms
        if arm.runs(scenario)
    ]


def terminals(scenario: Scenario) -> list[tuple[Character, Goal]]:
    """The goals that are to come true, with their characters."""
    return [(character, goal) for character, goal in scenario.goals() if goal.kind == "terminal"]


def set_goals(scenarios: Sequence[Scenario]) -> list[tuple[str, str, str]]:
    """All terminals of all scenarios: id of the scenario, `character/goal`, text."""
    return [
        (scenario.id, goal_key(character.id, goal.id), goal.text)
        for scenario in scenarios
        for character, goal in terminals(scenario)
    ]


def measure_run(scenarios: Sequence[Scenario], cell: ScenarioCell, run: Path, context: JudgeContext) -> Measured:
    """Take what is needed of a finished run.

    Args:
        scenarios: of the experiment, for all their goals.
        cell: whose run it is.
        run: its folder.
        context: the model, for its bare base, and the judge.

    Raises:
        RunDamaged: the run was changed.
    """
    events = logs_of(run, read_manifest(run))["guided"].events
    opening, turns = events[0], [event for event in events if isinstance(event, TurnEvent)]
    assert isinstance(opening, OpeningEvent)
    written = [(turn, (turn.cue + turn.text).strip()) for turn in turns]
    sentences = [tuple(" ".join(s.split()) for s in split_sentences(text)) for _, text in written]
    scores = [()] * len(turns) if context.judge is None else _scores(scenarios, sentences, context)
    return Measured(
        cell=cell.key,
        turns=tuple(
            Turn(character=turn.character, text=text, sentences=told, similarities=near)
            for (turn, text), told, near in zip(written, sentences, scores, strict=True)
        ),
        reached={
            goal_key(goal.character, goal.goal): goal.guided.reached is not None
            for goal in read_progress(run).goals
            if goal.kind == "terminal"
        },
        base_nll=_written_nll(opening, turns, context.model),
        tokens=sum(turn.tokens for turn in turns),
        seconds=total_seconds(run),
        judged=context.judge is not None,
    )


def save_measured(folder: Path, cell: ScenarioCell, measured: Measured) -> None:
    """Write what is known of a cell into the folder of the experiment, whole or not at all.

    Raises:
        RunWriteError: the file system refused.
    """
    write_sealed(folder, cell.file(folder), measured.model_dump_json() + "\n")


def read_measured(folder: Path, cell: ScenarioCell, *, judged: bool) -> Measured | None:
    """What `save_measured` wrote of a cell; None where nothing was, or no judge's similarities and they are wanted.

    Raises:
        RunDamaged: the file does not hold this cell.
    """
    path = cell.file(folder)
    try:
        found = Measured.model_validate_json(read_sealed(folder, path)[0])
        if found.cell != cell.key:
            raise ValueError(f"it is of {found.cell}")
        return found if found.judged or not judged else None
    except FileNotFoundError:
        return None
    except ValueError as error:
        what = error.errors()[0]["msg"] if isinstance(error, pydantic.ValidationError) else error
        raise RunDamaged(f"{path} was changed: {what}; delete it, and it is measured again") from error


def _scores(
    scenarios: Sequence[Scenario], sentences: Sequence[Sequence[str]], context: JudgeContext
) -> list[tuple[tuple[float, ...], ...]]:
    """Cosines of each turn's sentences with all goals of the set."""
    texts = [goal for _, _, goal in set_goals(scenarios)]
    flat = sorted({sentence for told in sentences for sentence in told})
    near = (context.embed(flat) @ context.embed(texts).T).round(DECIMALS) if flat else None
    rows = {} if near is None else dict(zip(flat, near.tolist(), strict=True))
    return [tuple(tuple(rows[s]) for s in told) for told in sentences]


def _written_nll(opening: OpeningEvent, turns: Sequence[TurnEvent], model: LatentModel) -> float | None:
    """Mean NLL of the kept tokens of all turns, each behind the visible text that was fed; cues are not counted."""
    visible, contexts = list(opening.ids), []
    for turn in turns:
        visible += turn.cue_ids
        contexts.append(visible[-opening.max_context :])
        visible += turn.ids
    counts = np.array([len(turn.ids) for turn in turns])
    if not counts.sum():
        return None
    return float(np.nansum(nlls(model, contexts, [turn.ids for turn in turns]) * counts) / counts.sum())
