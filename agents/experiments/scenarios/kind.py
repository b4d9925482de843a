"""Experiments over scenarios: whole simulations, in arms that change the planner; goals by relation and by role.

A cell is an arm, a scenario and a seed. Its run is one of `agents.simulation.simulation` under `runs/`, resumed where
it was stopped.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import pydantic
from numpy.typing import NDArray

from agents.characters.goal_queries import resolve_wishes
from agents.errors import ExperimentError, RunDamaged
from agents.experiments.kind import (
    ROLES,
    ArmInfo,
    ArmText,
    Captions,
    Example,
    Kind,
    Observation,
    Observed,
    Tally,
    fill,
)
from agents.experiments.measures import Embedder, JudgeContext, takeable
from agents.experiments.scenarios.cells import (
    Measured,
    ScenarioCell,
    measure_run,
    plan_cells,
    read_measured,
    save_measured,
)
from agents.experiments.scenarios.measures import MEASURES, Aim, MeasuredRun, make_run, told_threshold
from agents.experiments.scenarios.spec import (
    ScenarioExperiment,
    check_experiment,
    load_scenarios,
    scenario_of,
    with_absolute_paths,
)
from agents.experiments.statistics import means
from agents.scenarios.schema import Scenario, override
from agents.simulation.manifest import MANIFEST, read_manifest
from agents.simulation.simulation import resume_run, run_scenario
from steer.models.latent_model import LatentModel

RUNS = "runs"
SHOWN = 2  # scenarios of each relation in a report
PARTS = 10  # of a run, in the figure of its course
CAPTIONS = Captions(
    item="scenarios",
    unit="runs",
    counted="goals",
    progress="reached",
    headline="told",
    about="{items} scenarios, {seeds}, model {model}. In brackets: 95 % bootstrap intervals over scenarios, whose "
    "seeds are averaged first.",
    judging="goals",
    judged="`told`: a sentence is as near to the goal (cosine {threshold:.2f}) as one in a thousand unrelated pairs of "
    "sentence and goal, by an embedder that no arm uses. `reached`: told by the account of the run itself, with the "
    "model's own encoder. `nearest`: nearer than to any goal of another scenario. `ahead`: nearest of the scenario's "
    "own goals. `leakage`: nearness to a goal of the turns of those who do not have it.",
    unjudged="Goals were not judged: the judge was not installed when the runs were measured.",
    titles={"goal": "What became of the goals", "text": "The text", "cost": "The cost of one run"},
    verdict=(
        *("told", "all_told", "reached", "nearest"),
        *("base_nll", "distinct_3", "repetition", "tokens", "seconds"),
    ),
    tested=("told", "reached", "base_nll"),
    paired_by="scenario",
    by_group=("told", "all_told", "reached", "leakage", "told_by_others", "base_nll"),
    by_role=("told", "ahead", "reached"),
    best="Goals were told most often with",
    differs="Goals were told {} often",
    own="By their own account the runs of {best} reached {reached}: read `told`, which is judged from outside.",
    success="more goals that are told",
    axis="goals told",
    examples="The first two scenarios of each relation, with the first seed; nothing was chosen. Behind each goal: "
    "whether it was told, how near the nearest sentence came (cosine, by the judge), and whether the run itself counts "
    "it as reached.",
    tests="on the scenarios that both are run in, seeds of a scenario averaged first",
)
_BLANK = re.compile(r"\n\s*\n")


@final
class ScenarioKind(Kind[ScenarioCell]):
    """An experiment over scenarios.

    Args:
        experiment: the file.
        scenarios: in order; their ids are unique.
    """

    name = "scenarios"
    spec = ScenarioExperiment
    measures = MEASURES
    captions = CAPTIONS

    def __init__(self, experiment: ScenarioExperiment, scenarios: Sequence[Scenario]) -> None:
        self.experiment: ScenarioExperiment = experiment
        self.scenarios = scenarios

    @staticmethod
    def absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
        """See `Kind.absolute`."""
        return with_absolute_paths(data, folder)

    @staticmethod
    def check(experiment: ScenarioExperiment) -> None:
        """See `Kind.check`; the scenarios are read."""
        check_experiment(experiment, load_scenarios(experiment))

    @classmethod
    def make(cls, experiment: ScenarioExperiment, load_model: Any = None) -> Self:
        """The kind with the scenarios that the experiment names; no model is needed."""
        try:
            return cls(experiment, load_scenarios(experiment))
        except pydantic.ValidationError as error:
            raise ExperimentError(error.errors()[0]["msg"]) from error

    @classmethod
    def read(cls, experiment: ScenarioExperiment, folder: Path) -> Self:
        """The same: a run keeps the hashes of its scenarios alone."""
        return cls.make(experiment)

    def settings(self) -> dict[str, Any]:
        """All that decides what is written, the scenarios by their hashes."""
        hashes = {scenario.id: scenario.sha256() for scenario in self.scenarios}
        return self.experiment.settings() | {"scenarios": hashes}

    def files(self) -> dict[str, str]:
        """None: each run keeps its scenario."""
        return {}

    def plan(self, limit: int | None = None) -> list[ScenarioCell]:
        """All cells, or those of the first `limit` scenarios."""
        return plan_cells(self.experiment, self.scenarios, limit)

    def arms(self) -> list[ArmInfo]:
        """All arms."""
        return [ArmInfo(arm.name, arm.name) for arm in self.experiment.arms]

    def context(self, model: LatentModel, judge: Embedder | None) -> JudgeContext:
        """The model and the judge."""
        return JudgeContext(model, judge)

    def look(self, folder: Path, cell: ScenarioCell, *, judged: bool) -> Tally | None:
        """See `Kind.look`; what counts are goals, and how many of them the runs count as reached."""
        found = read_measured(folder, cell, judged=judged)
        if found is None:
            return None
        hits = sum(found.reached.values())
        return Tally(done=1, texts=len(found.reached), hits=hits, tokens=found.tokens, seconds=found.seconds)

    def do(self, folder: Path, cell: ScenarioCell, context: JudgeContext) -> bool:
        """See `Kind.do`."""
        run = folder / RUNS / cell.key
        written = self.run_cell(cell, context.model, run)
        save_measured(folder, cell, measure_run(self.scenarios, cell, run, context))
        return written

    def run_cell(self, cell: ScenarioCell, model: LatentModel, run: Path) -> bool:
        """Run a cell in a folder of its own, or go on with it; says whether there was anything to write."""
        scenario = scenario_of(self.experiment, cell.arm, cell.scenario, cell.seed)
        if (run / MANIFEST).exists():
            if read_manifest(run).scenario_sha256 != resolve_wishes(override(scenario), model).sha256():
                raise RunDamaged(f"{run} holds a run of another scenario, seed or arm; delete it, and it is run again")
            return resume_run(run, model).status == "finished"
        if run.exists():  # it was stopped before its first turn; nobody else has the claim
            shutil.rmtree(run)
        run_scenario(scenario, model, run, baseline=False)
        return True

    def observe(self, folder: Path, cells: Sequence[ScenarioCell], *, judged: bool) -> Observed:
        """See `Kind.observe`."""
        measured = [read_measured(folder, cell, judged=judged) for cell in cells]
        found = [one for one in measured if one is not None]
        return self.gather(cells, found, judged=judged)

    def gather(self, cells: Sequence[ScenarioCell], found: Sequence[Measured], *, judged: bool) -> Observed:
        """All that was observed in cells, from what was taken of each."""
        threshold = told_threshold(self.scenarios, cells, found)
        runs = [make_run(self.scenarios, cell, one, threshold) for cell, one in zip(cells, found, strict=True)]
        names, observations, rows = takeable(MEASURES, judged=judged), [], []
        for run in runs:
            values = {name: measure.take(run) for name, measure in MEASURES.items()}
            observations += _observations(run, {name: values[name] for name in names})
            rows.append(_sample(run, values))
        groups = {cell.scenario.id: cell.relation for cell in cells}
        everywhere = [arm.name for arm in self.experiment.arms if all(arm.runs(s) for s in _ran(cells))]
        return Observed(groups, observations, rows, {"threshold": threshold}, _courses(rows, everywhere))

    def trial(self, cell: ScenarioCell, model: LatentModel) -> tuple[float, float]:
        """A single round of turns, whose goals are due at its end.

        Spans at full weight need no draft, so a search may cost half as much again as is said.
        """
        turns = min(cell.scenario.turns, len(cell.scenario.characters))
        scenario = override(scenario_of(self.experiment, cell.arm, cell.scenario, cell.seed), turns=turns)
        with tempfile.TemporaryDirectory() as folder:
            summary = run_scenario(scenario, model, Path(folder) / "run", baseline=False)
        return summary.tokens / summary.turns, summary.seconds / summary.turns

    def cached_tokens(self, cells: Sequence[ScenarioCell], model: LatentModel, tokens: float) -> float:
        """None: one context at a time is in the sample already."""
        return 0.0

    @classmethod
    def examples(cls, samples: Sequence[Mapping[str, Any]], seed: int) -> tuple[Example, ...]:
        """The first scenarios of each relation, in the order of the file."""
        first = [row for row in samples if row["seed"] == seed]
        relations: dict[str, dict[str, None]] = {}
        for row in first:
            relations.setdefault(row["relation"], {})[row["scenario"]] = None
        found = []
        for scenario in [name for names in relations.values() for name in list(names)[:SHOWN]]:
            own = [row for row in first if row["scenario"] == scenario]
            goals = tuple(f"{goal['goal']} ({goal['role'] or '-'}): {goal['text']}" for goal in own[0]["goals"])
            opening = (("Opening", own[0]["opening"]),)
            found.append(Example(scenario, scenario, opening, goals, tuple(map(_text, own))))
        return tuple(found)


def _ran(cells: Sequence[ScenarioCell]) -> list[Scenario]:
    return list({cell.scenario.id: cell.scenario for cell in cells}.values())


def _observations(run: MeasuredRun, values: Mapping[str, NDArray[np.float64]]) -> list[Observation]:
    """Means over the goals of a run, of all and by role."""
    arm, item, roles = run.cell.row, run.cell.scenario.id, np.array([aim.role for aim in run.aims])
    found = [Observation(arm, item, {name: float(means(value)) for name, value in values.items()})]
    for role in sorted(set(roles) - {""}, key=ROLES.index):
        own = {name: float(means(v[roles == role])) for name, v in values.items() if not MEASURES[name].whole}
        found.append(Observation(arm, item, own, role))
    return found


def _sample(run: MeasuredRun, values: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """A line of `samples.jsonl`: the turns' texts, how near each turn came to each goal, and the measures."""
    cell, turns = run.cell, run.measured.turns
    goals = [
        {"goal": aim.key, "text": aim.text, "role": aim.role, "by_turn": _by_turn(aim, len(turns))}
        | {name: float(values[name][i]) for name, measure in MEASURES.items() if not measure.whole}
        for i, aim in enumerate(run.aims)
    ]
    return {
        "arm": cell.row,
        "scenario": cell.scenario.id,
        "relation": cell.relation,
        "seed": cell.seed,
        "opening": cell.scenario.opening,
        "turns": [{"character": turn.character, "text": turn.text} for turn in turns],
        "goals": goals,
        "measures": {name: float(means(value)) for name, value in values.items()},
    }


def _by_turn(aim: Aim, turns: int) -> list[float]:
    """Greatest cosine of a sentence of each turn and the goal; NaN where a turn says nothing, or is too late."""
    near = [aim.near[aim.turn == turn] for turn in range(1, turns + 1)]
    return [float(values.max()) if len(values) else float("nan") for values in near]


def _courses(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The nearest that the goals of each arm came up to each tenth of a run: means over goals and runs; NaN unjudged.

    A run of fewer turns than tenths stands still in some of them.
    """
    found = {}
    for arm in arms:
        goals = [goal["by_turn"] for row in rows if row["arm"] == arm for goal in row["goals"] if goal["by_turn"]]
        courses = np.full((len(goals), PARTS), np.nan)
        for course, by_turn in zip(courses, goals, strict=True):
            near = np.nan_to_num(np.array(by_turn), nan=-np.inf)
            turns = np.ceil(np.arange(1, PARTS + 1) / PARTS * len(near)).astype(int)
            course[:] = np.maximum.accumulate(near)[turns - 1]
        found[arm] = tuple(means(np.where(np.isfinite(courses), courses, np.nan)).tolist())
    return found


def _text(row: Mapping[str, Any]) -> ArmText:
    """What an arm made of a scenario."""
    facts = fill(row["measures"], {"base_nll": "NLL {:.2f}", "tokens": "{:,.0f} tokens"})
    turns = tuple(
        (f"{number}. {turn['character']}", _BLANK.sub("\n", turn["text"]).strip())
        for number, turn in enumerate(row["turns"], start=1)
    )
    return ArmText(row["arm"], facts, tuple(map(_fate, row["goals"])), turns)


def _fate(goal: Mapping[str, Any]) -> str:
    """What became of a goal in a run: told or not, how near it came, and the run's own account."""
    judged = "" if goal["told"] is None else "told" if goal["told"] else "not told"
    near = "" if goal["similarity"] is None else f"{goal['similarity']:.2f}"
    own = "run: reached" if goal["reached"] else "run: not reached"
    return f"{goal['goal']}: " + ", ".join(part for part in (judged, near, own) if part)
