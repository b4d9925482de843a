"""The cells of an experiment over scenarios, and what is measured of one: all that needs the model or the judge.

What a cell's numbers mean depends on all cells (the judge's threshold does), so that is left to
`agents.experiments.play_measures`. Here are the parts: sentences with their similarities to every goal of the set.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.errors import RunDamaged
from agents.experiments.bench import Embedder
from agents.experiments.play_spec import PlayArm, Plays, relation_of
from agents.log.chain import write_atomic
from agents.log.events import OpeningEvent, TurnEvent
from agents.scenarios.schema import Character, Goal, Scenario, goal_key
from agents.simulation.manifest import logs_of, read_manifest, total_seconds
from agents.simulation.progress import read_progress
from steer.evaluation.evaluate import base_nll
from steer.sentences import split_sentences
from steer.writing.guided import Written

DECIMALS = 4


@dataclass(frozen=True)
class PlayCell:
    """One unit of work: a scenario in one arm with one seed."""

    arm: PlayArm
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


@dataclass(frozen=True)
class PlayedTurn:
    """One turn as it was played.

    Attributes:
        character: id of who played it.
        text: that became visible, its cue included.
        sentences: of the text.
        similarities: of each sentence to each goal of the set, in the order of `set_goals`, by the judge; empty without
            one.
    """

    character: str
    text: str
    sentences: tuple[str, ...]
    similarities: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Measured:
    """What is known of a cell.

    Attributes:
        cell: its key.
        turns: as they were played.
        reached: by the run's own account, for each terminal of the scenario by `character/goal`.
        base_nll: of what was written, behind what was fed, under the bare base; nats per token, None if nothing was.
        tokens, seconds: spent on it, drafts and discarded candidates included.
        judged: whether there are the judge's similarities.
    """

    cell: str
    turns: tuple[PlayedTurn, ...]
    reached: dict[str, bool]
    base_nll: float | None
    tokens: int
    seconds: float
    judged: bool


def plan_plays(plays: Plays, limit: int | None = None) -> list[PlayCell]:
    """All cells, or those of the first `limit` scenarios: seed by seed, scenario by scenario, in each all arms."""
    return [
        PlayCell(arm, scenario, seed)
        for seed in plays.experiment.seeds
        for scenario in plays.scenarios[:limit]
        for arm in plays.experiment.arms
        if arm.plays(scenario)
    ]


def terminals(scenario: Scenario) -> list[tuple[Character, Goal]]:
    """The goals that are to come true, with their characters."""
    return [(character, goal) for character, goal in scenario.goals() if goal.kind == "terminal"]


def set_goals(plays: Plays) -> list[tuple[str, str, str]]:
    """All terminals of all scenarios: id of the scenario, `character/goal`, text."""
    return [
        (scenario.id, goal_key(character.id, goal.id), goal.text)
        for scenario in plays.scenarios
        for character, goal in terminals(scenario)
    ]


def measure_run(plays: Plays, cell: PlayCell, run: Path, model: Any, judge: Embedder | None) -> Measured:
    """Measure a finished run.

    Args:
        plays: the experiment, for the goals of all its scenarios.
        cell: that was played.
        run: its folder.
        model: a `LatentModel`, for its bare base.
        judge: the embedder, or None where none is installed.

    Raises:
        RunDamaged: the run was changed.
    """
    events = logs_of(run, read_manifest(run))["guided"].events
    opening, turns = events[0], [event for event in events if isinstance(event, TurnEvent)]
    assert isinstance(opening, OpeningEvent)
    played = [(turn, (turn.cue + turn.text).strip()) for turn in turns]
    sentences = [tuple(" ".join(s.split()) for s in split_sentences(text)) for _, text in played]
    scores = [()] * len(turns) if judge is None else _scores(plays, sentences, judge)
    return Measured(
        cell=cell.key,
        turns=tuple(
            PlayedTurn(turn.character, text, told, near)
            for (turn, text), told, near in zip(played, sentences, scores, strict=True)
        ),
        reached={
            goal_key(goal.character, goal.goal): goal.guided.reached is not None
            for goal in read_progress(run).goals
            if goal.kind == "terminal"
        },
        base_nll=_written_nll(opening, turns, model),
        tokens=sum(turn.tokens for turn in turns),
        seconds=total_seconds(run),
        judged=judge is not None,
    )


def save_measured(path: Path, measured: Measured) -> None:
    """Write what is known of a cell, whole or not at all.

    Raises:
        RunWriteError: the file system refused.
    """
    write_atomic(path, json.dumps(asdict(measured), ensure_ascii=False) + "\n")


def read_measured(path: Path, cell: PlayCell, *, judged: bool) -> Measured | None:
    """What `save_measured` wrote of a cell; None where nothing was, or no judge's similarities and they are wanted.

    Raises:
        RunDamaged: the file does not hold this cell.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        turns = [
            PlayedTurn(
                turn["character"],
                turn["text"],
                tuple(turn["sentences"]),
                tuple(tuple(row) for row in turn["similarities"]),
            )
            for turn in data.pop("turns")
        ]
        found = Measured(turns=tuple(turns), **data)
        if found.cell != cell.key:
            raise ValueError(f"it is of {found.cell}")
        return found if found.judged or not judged else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDamaged(f"{path} was changed: {error}; delete it, and it is measured again") from error


def _scores(plays: Plays, sentences: Sequence[Sequence[str]], judge: Embedder) -> list[tuple[tuple[float, ...], ...]]:
    """Cosines of each turn's sentences with all goals of the set."""
    texts = [goal for _, _, goal in set_goals(plays)]
    flat = sorted({s for told in sentences for s in told}, key=lambda s: (len(s), s))
    near = (judge.embed(flat).double() @ judge.embed(texts).double().T).numpy().round(DECIMALS) if flat else None
    rows = {} if near is None else dict(zip(flat, near.tolist(), strict=True))
    return [tuple(tuple(rows[s]) for s in told) for told in sentences]


def _written_nll(opening: OpeningEvent, turns: Sequence[TurnEvent], model: Any) -> float | None:
    """Mean NLL of the kept tokens of all turns, each behind the visible text that was fed; cues are not counted."""
    visible, rows, empty = list(opening.ids), [], torch.zeros(0)
    for turn in turns:
        visible += turn.cue_ids
        context = tuple(visible[-opening.max_context :])
        rows.append(Written(turn.ids, turn.text, (), empty, empty, turn.ended, context))
        visible += turn.ids
    counts = np.array([len(row.ids) for row in rows])
    if not counts.sum():
        return None
    return float(np.nansum(base_nll(model, rows) * counts) / counts.sum())
