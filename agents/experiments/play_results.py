"""Results of an experiment over scenarios: by arm, by relation of the goals, and by role; with intervals and tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from agents.experiments.bench import takeable
from agents.experiments.folder import json_lines
from agents.experiments.play_cells import Measured, PlayCell
from agents.experiments.play_measures import PLAY_MEASURES, Aim, Play, make_play, told_threshold
from agents.experiments.play_spec import ROLES, PlayArm, Plays, relation_of
from agents.experiments.run_results import RunResults, TestedPair, compare_arms, plain_json, read_measures
from agents.experiments.statistics import Estimate, bootstrap_weights, estimate, means

ALL = "all"


@dataclass(frozen=True)
class PlayRow:
    """One row of the tables.

    Attributes:
        arm: its name.
        relation: of the scenarios that are counted; `all` for all of them.
        role: of the characters whose goals are counted (`first`, ...); empty for all of them.
        scenarios: how many.
        measures: mean and interval over scenarios, by measure; with a role, of the measures that goals have.
    """

    arm: str
    relation: str
    role: str
    scenarios: int
    measures: Mapping[str, Estimate]


@final
@dataclass(frozen=True)
class PlayResults(RunResults):
    """All numbers of a run.

    Attributes:
        id, title, model, seeds: of the experiment.
        scenarios: ids of those that were played.
        reference: name of the arm that the others are tested against.
        judged: whether there was a judge.
        threshold: similarity from which a sentence tells a goal; NaN without a judge.
        rows: see there. An arm has a row for all scenarios, and for a relation, if it is played in each of them.
        tests: of each other arm against the reference, on the scenarios that both are played in, by measure.
    """

    id: str
    title: str
    model: str
    scenarios: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: str
    judged: bool
    threshold: float
    rows: tuple[PlayRow, ...]
    tests: tuple[TestedPair, ...]

    def row(self, arm: str, relation: str = ALL, role: str = "") -> PlayRow | None:
        """A row; None where the arm has no such row."""
        return next((r for r in self.rows if (r.arm, r.relation, r.role) == (arm, relation, role)), None)

    def arms(self) -> list[str]:
        """Names of the arms, in the order of the file."""
        return list(dict.fromkeys(row.arm for row in self.rows))

    def whole(self) -> list[PlayRow]:
        """The rows for all scenarios, of the arms that are played in each."""
        return [row for row in self.rows if (row.relation, row.role) == (ALL, "")]

    def relations(self) -> list[str]:
        """The relations that there are, without `all`."""
        return sorted({row.relation for row in self.rows} - {ALL})

    @staticmethod
    def _read(data: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "scenarios": tuple(data["scenarios"]),
            "threshold": float("nan") if data["threshold"] is None else data["threshold"],
            "rows": tuple(PlayRow(**{**row, "measures": read_measures(row["measures"])}) for row in data["rows"]),
        }


def gather_plays(plays: Plays, cells: Sequence[PlayCell], measured: Sequence[Measured]) -> PlayResults:
    """Compute the results of cells that are all done.

    Args:
        plays: the experiment.
        cells: of it, of the first scenarios or of all.
        measured: one per cell.
    """
    threshold = told_threshold(plays, cells, measured)
    judged = all(found.judged for found in measured)
    names = takeable(PLAY_MEASURES, judged=judged)
    made = [make_play(plays, cell, found, threshold) for cell, found in zip(cells, measured, strict=True)]
    played = {cell.scenario.id for cell in cells}
    scenarios = [scenario for scenario in plays.scenarios if scenario.id in played]
    relations = sorted({relation_of(scenario) for scenario in scenarios})
    groups = {ALL: scenarios} | {
        relation: [scenario for scenario in scenarios if relation_of(scenario) == relation] for relation in relations
    }
    rows = []
    for arm in plays.experiment.arms:
        for relation, members in groups.items():
            if len(relations) == 1 and relation != ALL or not all(arm.plays(scenario) for scenario in members):
                continue
            ids = [scenario.id for scenario in members]
            own = [play for play in made if play.cell.arm == arm and play.cell.scenario.id in ids]
            rows += _rows(arm, relation, ids, own, names)
    ids, by_arm = [scenario.id for scenario in scenarios], {arm.name: [] for arm in plays.experiment.arms}
    for play in made:
        by_arm[play.cell.arm.name].append(play)
    by_measure = {name: {arm: _values(ids, own, name) for arm, own in by_arm.items()} for name in names}
    return PlayResults(
        id=plays.id,
        title=plays.experiment.title,
        model=plays.experiment.model,
        scenarios=tuple(ids),
        seeds=plays.experiment.seeds,
        reference=plays.reference,
        judged=judged,
        threshold=threshold,
        rows=tuple(rows),
        tests=compare_arms(by_measure, plays.reference, bootstrap_weights(len(scenarios))),
    )


def play_samples(plays: Plays, cells: Sequence[PlayCell], measured: Sequence[Measured], threshold: float) -> str:
    """All cells as JSON lines: the turns' texts, how near each turn came to each goal, and the measures."""
    lines = []
    for cell, found in zip(cells, measured, strict=True):
        play = make_play(plays, cell, found, threshold)
        values = {name: measure.take(play) for name, measure in PLAY_MEASURES.items()}
        goals = [
            {"goal": aim.key, "text": aim.text, "role": aim.role, "by_turn": _by_turn(aim, len(found.turns))}
            | {name: float(values[name][i]) for name, measure in PLAY_MEASURES.items() if not measure.whole}
            for i, aim in enumerate(play.aims)
        ]
        lines.append(
            {
                "arm": cell.arm.name,
                "scenario": cell.scenario.id,
                "relation": cell.relation,
                "seed": cell.seed,
                "opening": cell.scenario.opening,
                "turns": [{"character": turn.character, "text": turn.text} for turn in found.turns],
                "goals": goals,
                "measures": {name: _mean(values[name]) for name in values},
            }
        )
    return json_lines(plain_json(line) for line in lines)


def _by_turn(aim: Aim, turns: int) -> list[float]:
    """Greatest cosine of a sentence of each turn and the goal; NaN where a turn says nothing, or is too late."""
    near = [aim.near[aim.turn == turn] for turn in range(1, turns + 1)]
    return [float(values.max()) if len(values) else float("nan") for values in near]


def _rows(
    arm: PlayArm, relation: str, scenarios: Sequence[str], plays: Sequence[Play], names: Sequence[str]
) -> Iterator[PlayRow]:
    """The row of an arm in a group of scenarios, and one for each role in it."""
    weights = bootstrap_weights(len(scenarios))
    for role in ("", *ROLES):
        if role and not any(aim.role == role for play in plays for aim in play.aims):
            continue
        taken = [name for name in names if not (role and PLAY_MEASURES[name].whole)]
        values = {name: _values(scenarios, plays, name, role) for name in taken}
        estimates = {name: estimate(value, weights) for name, value in values.items()}
        yield PlayRow(arm.name, relation, role, len(scenarios), estimates)


def _values(scenarios: Sequence[str], plays: Sequence[Play], name: str, role: str = "") -> NDArray[np.float64]:
    """Means over seeds and goals of one measure, `[scenarios]`; NaN where none was played, or nobody has the role."""
    found: dict[str, list[float]] = {scenario: [] for scenario in scenarios}
    for play in plays:
        if play.cell.scenario.id in found:
            value = PLAY_MEASURES[name].take(play)
            if role:
                value = value[np.array([aim.role == role for aim in play.aims])]
            found[play.cell.scenario.id].append(_mean(value))
    return np.array([_mean(np.array(values)) for values in found.values()])


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is there; NaN where nothing is."""
    return float(means(values))
