"""Measures of a scenario that was run, as plain functions of one signature.

A measure is `measure(run) -> float64 [n]`: a number for each terminal of the scenario, or (where it is of the `whole`)
a single one; NaN where there is none. A new measure is a function and a line in `MEASURES`: all are taken anew from the
stored cells whenever the command is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.experiments import lexical
from agents.experiments.kind import ROLES
from agents.experiments.measures import Measure
from agents.experiments.scenarios.cells import Measured, ScenarioCell, set_goals, terminals
from agents.scenarios.schema import Scenario, goal_key

QUANTILE = 0.999


@dataclass(frozen=True, eq=False)
class Aim:
    """A terminal of a scenario that was run.

    Attributes:
        key, text, role: `character/goal`, its text, and the place of its character (`first`, ...).
        last: turn up to which it counts.
        near: the judge's similarity of each sentence up to there, float64 `[sentences]`; empty without a judge.
        foreign: for each of them, whether it is from a turn of somebody who has no goal of this text.
        turn: of each sentence, counted from 1.
        rivals: greatest similarity of any such sentence to any goal of another scenario; NaN where there is none.
    """

    key: str
    text: str
    role: str
    last: int
    near: NDArray[np.float64]
    foreign: NDArray[np.bool_]
    turn: NDArray[np.int64]
    rivals: float

    @property
    def best(self) -> float:
        """Greatest similarity of any sentence; NaN without any."""
        return float(self.near.max()) if len(self.near) else np.nan


@dataclass(frozen=True, eq=False)
class MeasuredRun:
    """A cell, its parts, and the judge's threshold (NaN without a judge)."""

    cell: ScenarioCell
    measured: Measured
    aims: tuple[Aim, ...]
    threshold: float

    @property
    def text(self) -> str:
        """All turns."""
        return "\n\n".join(turn.text for turn in self.measured.turns)


def similarities(measured: Measured) -> NDArray[np.float64]:
    """Of all sentences of a cell to all goals of the set, `[sentences, goals]`; empty where there is no judge."""
    return np.array([row for turn in measured.turns for row in turn.similarities], dtype=np.float64)


def told_threshold(scenarios: Sequence[Scenario], cells: Sequence[ScenarioCell], measured: Sequence[Measured]) -> float:
    """The similarity that one in a thousand unrelated pairs reaches: a sentence, and a goal of another scenario.

    All arms count, so that one threshold holds for all. NaN without a judge, or with a single scenario.
    """
    owners = np.array([scenario for scenario, _, _ in set_goals(scenarios)])
    unrelated = [
        near[:, owners != cell.scenario.id].ravel()
        for cell, found in zip(cells, measured, strict=True)
        if (near := similarities(found)).size
    ]
    values = np.concatenate(unrelated) if unrelated else np.zeros(0)
    return float(np.quantile(values, QUANTILE)) if values.size else float("nan")


def make_run(scenarios: Sequence[Scenario], cell: ScenarioCell, measured: Measured, threshold: float) -> MeasuredRun:
    """Put together what the measures look at."""
    goals, scenario = set_goals(scenarios), cell.scenario
    place = {(owner, key): index for index, (owner, key, _) in enumerate(goals)}
    others = np.array([owner != scenario.id for owner, _, _ in goals])
    near = similarities(measured)
    turns = np.array(
        [number for number, turn in enumerate(measured.turns, start=1) for _ in turn.similarities], dtype=np.int64
    )
    who = np.array([turn.character for turn in measured.turns for _ in turn.similarities])
    wanting: dict[str, set[str]] = {}
    for character, goal in terminals(scenario):
        wanting.setdefault(goal.text, set()).add(character.id)
    aims = []
    for character, goal in terminals(scenario):
        key, last = goal_key(character.id, goal.id), scenario.deadline(goal)
        counted = turns <= last
        rows = near[counted] if near.size else np.zeros((0, len(goals)))
        aims.append(
            Aim(
                key=key,
                text=goal.text,
                role=ROLES[scenario.characters.index(character)] if len(scenario.characters) <= len(ROLES) else "",
                last=last,
                near=rows[:, place[scenario.id, key]],
                foreign=~np.isin(who[counted], sorted(wanting[goal.text])),
                turn=turns[counted],
                rivals=float(rows[:, others].max()) if rows[:, others].size else float("nan"),
            )
        )
    return MeasuredRun(cell, measured, tuple(aims), threshold)


def told(run: MeasuredRun) -> NDArray[np.float64]:
    """1 where a sentence is as near to the goal as one in a thousand unrelated ones."""
    return np.array([_reaches(aim.near, run) for aim in run.aims])


def all_told(run: MeasuredRun) -> NDArray[np.float64]:
    """1 where all goals of the scenario are told."""
    return np.array([told(run).min()])


def reached(run: MeasuredRun) -> NDArray[np.float64]:
    """1 where the run itself, by the model's own encoder, counts the goal as reached."""
    return np.array([float(run.measured.reached[aim.key]) for aim in run.aims])


def nearest(run: MeasuredRun) -> NDArray[np.float64]:
    """1 where the text came nearer to the goal than to any goal of another scenario."""
    return np.array([np.nan if np.isnan(aim.rivals) else float(aim.best > aim.rivals) for aim in run.aims])


def similarity(run: MeasuredRun) -> NDArray[np.float64]:
    """Greatest cosine of a sentence and the goal."""
    return np.array([aim.best for aim in run.aims])


def ahead(run: MeasuredRun) -> NDArray[np.float64]:
    """1 where the goal came nearest of all goals of the scenario, shared where several came equally near."""
    best = similarity(run)
    if np.isnan(best).any() or len(best) < 2:
        return np.full(len(best), np.nan)
    first = np.isclose(best, best.max())
    return first / first.sum()


def leakage(run: MeasuredRun) -> NDArray[np.float64]:
    """Mean over the turns of characters who do not have the goal, of the greatest cosine of a sentence and the goal."""
    return np.array(
        [
            np.mean([aim.near[aim.turn == turn].max() for turn in found])
            if (found := sorted(set(aim.turn[aim.foreign])))
            else np.nan
            for aim in run.aims
        ]
    )


def told_by_others(run: MeasuredRun) -> NDArray[np.float64]:
    """1 where the goal is told in the turn of a character who does not have it."""
    return np.array([_reaches(aim.near[aim.foreign], run) if aim.foreign.any() else np.nan for aim in run.aims])


def _whole(of: Callable[[MeasuredRun], float], about: str, group: Literal["text", "cost"], **shown: Any) -> Measure:
    """A measure of the whole text, described by a line for the glossary."""

    def take(run: MeasuredRun) -> NDArray[np.float64]:
        return np.array([float(of(run))])

    take.__doc__ = about
    return Measure(take, group, whole=True, **shown)


def _nll(run: MeasuredRun) -> float:
    value = run.measured.base_nll
    return np.nan if value is None else value


MEASURES: dict[str, Measure] = {
    "told": Measure(told, "goal", percent=True, judged=True),
    "all_told": Measure(all_told, "goal", percent=True, judged=True, whole=True),
    "reached": Measure(reached, "goal", percent=True),
    "nearest": Measure(nearest, "goal", percent=True, judged=True),
    "similarity": Measure(similarity, "goal", judged=True),
    "ahead": Measure(ahead, "role", percent=True, judged=True),
    "leakage": Measure(leakage, "goal", judged=True),
    "told_by_others": Measure(told_by_others, "goal", percent=True, judged=True),
    "base_nll": _whole(_nll, "Mean NLL of what was written under the bare, unsteered base, nats per token.", "text"),
    "distinct_3": _whole(
        lambda run: lexical.distinct(run.text, 3),
        "Different triples of neighbouring words over all such triples, of the whole text behind the opening.",
        "text",
    ),
    "repetition": _whole(
        lambda run: lexical.repetition(run.text),
        "Share of the text's runs of four words that stand in it more than once.",
        "text",
        percent=True,
    ),
    "tokens": _whole(
        lambda run: run.measured.tokens,
        "Tokens generated for the whole run, drafts and discarded candidates included.",
        "cost",
        digits=0,
    ),
    "seconds": _whole(lambda run: run.measured.seconds, "Wall time of the run's turns.", "cost", digits=1),
}


def _reaches(near: NDArray[np.float64], run: MeasuredRun) -> float:
    if np.isnan(run.threshold):
        return float("nan")
    return float(bool((near >= run.threshold).any()))
