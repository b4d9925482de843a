"""Experiments over pairs of context and terminal: texts that are written towards their terminals, and ranked."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from agents.errors import ExperimentError
from agents.experiments.kind import ArmInfo, ArmText, Captions, Example, Kind, Observation, Observed, Tally, fill
from agents.experiments.measures import Embedder, JudgeContext, takeable
from agents.experiments.pairs.arms import ARMS
from agents.experiments.pairs.cells import (
    PairCell,
    is_done,
    plan_cells,
    read_measures,
    read_samples,
    save_measures,
    save_samples,
)
from agents.experiments.pairs.measures import MEASURES
from agents.experiments.pairs.source import load_pairs, pairs_text, read_pairs, source_identity
from agents.experiments.pairs.spec import PairExperiment
from agents.experiments.pairs.writing import Sample, Task
from steer.data.pairs import Pair
from steer.evaluation.endings import GROUP
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.text import read_text

PAIRS = "pairs.jsonl"
SHOWN = 10  # pairs in a report
TRIAL_PAIRS = 4
HEADLINE = "nearest"
CAPTIONS = Captions(
    item="pairs",
    unit="texts",
    counted="texts",
    progress=HEADLINE,
    headline=HEADLINE,
    about="{items} pairs of context and terminal, {seeds}, {spans:.0f} spans per text, model {model}. In brackets: "
    "95 % bootstrap intervals over pairs.",
    judging="endings",
    judged="`nearest`: share of endings whose nearest terminal among {group:.0f} is the right one, by a sentence "
    "embedder that no arm and no reward uses; `nearest five`: among the five nearest.",
    unjudged="Endings were not judged: the judge was not installed when the run was measured.",
    titles={"goal": "How often and how near the goal came", "text": "The text", "cost": "The cost of one text"},
    # What a verdict needs: whether the goal came, whether the text is still one, and what it cost.
    verdict=("nearest", "nearest_five", "overlap", "base_nll", "distinct_3", "repetition", "tokens", "seconds"),
    tested=(HEADLINE,),
    best="The right terminal was nearest most often with",
    differs="It was nearest {} often",
    success="more endings that arrive",
    axis="right terminal nearest of {group:.0f}",
    examples="The first {examples} pairs, with the first seed; nothing was chosen.",
    tests="on the same pairs",
)


@final
class PairKind(Kind[PairCell]):
    """An experiment over pairs.

    Args:
        experiment: the file.
        pairs: all of them.
    """

    name = "pairs"
    spec = PairExperiment
    measures = MEASURES
    captions = CAPTIONS

    def __init__(self, experiment: PairExperiment, pairs: Sequence[Pair]) -> None:
        self.experiment: PairExperiment = experiment
        self.pairs = pairs
        self._trials: dict[str, tuple[float, float, float]] = {}

    @staticmethod
    def absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
        """See `Kind.absolute`; of texts that an arm names by a file, such as `samples` of a voice, the lines."""
        if isinstance(source := data.get("pairs"), dict):
            for key in ("file", "stories"):
                if isinstance(source.get(key), str):
                    source[key] = str(folder / source[key])
        arms = data.get("arms")
        for arm in arms if isinstance(arms, list) else ():
            if isinstance(arm, dict) and isinstance(arm.get("store"), str):
                arm["store"] = str(folder / arm["store"])
            if isinstance(arm, dict) and isinstance(arm.get("samples"), str):
                lines = read_text(folder / arm["samples"], "file of samples").splitlines()
                arm["samples"] = [line.strip() for line in lines if line.strip()]
        return data

    @staticmethod
    def check(experiment: PairExperiment) -> None:
        """Nothing besides what the record checks."""

    @classmethod
    def make(cls, experiment: PairExperiment, load_model: Callable[[], LatentModel]) -> Self:
        """The kind with the pairs of the experiment's source; the model's tokens measure pairs cut from stories."""
        return cls(experiment, load_pairs(experiment.pairs, load_model))

    @classmethod
    def read(cls, experiment: PairExperiment, folder: Path) -> Self:
        """The kind with the pairs of a run."""
        return cls(experiment, read_pairs(folder / PAIRS))

    def settings(self) -> dict[str, Any]:
        """All that decides what is written, the content of the source of pairs included."""
        return self.experiment.settings() | {"pairs": source_identity(self.experiment.pairs)}

    def files(self) -> dict[str, str]:
        """The pairs."""
        return {PAIRS: pairs_text(self.pairs)}

    def plan(self, limit: int | None = None) -> list[PairCell]:
        """All cells of the first pairs, as many as `limit` says, or else the file."""
        return plan_cells(self.experiment, min(len(self.pairs), limit or self.experiment.limit or len(self.pairs)))

    def arms(self) -> list[ArmInfo]:
        """All arms, each with each of its budgets."""
        return [
            ArmInfo(v.name, v.arm.name, v.arm.method, v.budget, v.arm.options.diegetic)
            for v in self.experiment.variants()
        ]

    def context(self, model: LatentModel, judge: Embedder | None) -> JudgeContext:
        """With all pairs, among which right terminals are ranked."""
        return JudgeContext(model, judge, self.pairs, reached=self.experiment.reached)

    def look(self, folder: Path, cell: PairCell, *, judged: bool) -> Tally | None:
        """See `Kind.look`."""
        if not is_done(folder, cell, takeable(MEASURES, judged=judged)):
            return None
        sums = {name: float(np.nansum(values)) for name, values in read_measures(folder, cell).items()}
        tokens, seconds = int(sums.get("tokens", 0)), sums.get("seconds", 0.0)
        return Tally(done=1, texts=cell.units, hits=sums.get(HEADLINE, np.nan), tokens=tokens, seconds=seconds)

    def do(self, folder: Path, cell: PairCell, context: JudgeContext) -> bool:
        """See `Kind.do`."""
        pairs = self.pairs[cell.start : cell.stop]
        there = read_samples(folder, cell, pairs)
        samples = write_cell(self.experiment, context.model, cell, self.pairs) if there is None else there
        if there is None:
            save_samples(folder, cell, pairs, samples)
        numbers = read_measures(folder, cell)
        for name in takeable(MEASURES, judged=context.judge is not None):
            if name not in numbers:
                numbers[name] = _measure(name, samples, pairs, context)
        save_measures(folder, cell, numbers)
        return there is None

    def observe(self, folder: Path, cells: Sequence[PairCell], *, judged: bool) -> Observed:
        """See `Kind.observe`."""
        names, observations, rows = takeable(MEASURES, judged=judged), [], []
        for cell in cells:
            pairs = self.pairs[cell.start : cell.stop]
            samples, numbers = read_samples(folder, cell, pairs) or [], read_measures(folder, cell)
            for index, (pair, sample) in enumerate(zip(pairs, samples, strict=True)):
                values = {name: float(numbers[name][index]) for name in names}
                observations.append(Observation(cell.row, pair.id, values))
                texts = {"context": pair.context, "terminal": pair.terminal}
                rows.append(cell.fields(pair) | asdict(sample) | texts | {"measures": values})
        facts = {"spans": float(self.experiment.spans), "group": float(min(GROUP, len(self.pairs)))}
        groups = dict.fromkeys((observation.item for observation in observations), "")
        return Observed(groups, observations, rows, facts)

    def trial(self, cell: PairCell, model: LatentModel) -> tuple[float, float]:
        """A few pairs with the arm's smallest budget, taken to grow with it. Small batches are slow."""
        arm = cell.variant.arm
        if arm.name not in self._trials:
            budget = min(arm.budgets) if arm.budgets else arm.budget
            count = min(TRIAL_PAIRS, len(self.pairs))
            small = PairCell(replace(cell.variant, budget=budget), self.experiment.seeds[0], 0, count)
            # A first, short call takes what is done only once, such as merging adapters.
            write_cell(self.experiment.model_copy(update={"spans": 1}), model, replace(small, stop=1), self.pairs)
            samples = write_cell(self.experiment, model, small, self.pairs)
            tokens = float(np.mean([sample.tokens for sample in samples]))
            self._trials[arm.name] = tokens, float(np.mean([sample.seconds for sample in samples])), budget or 1.0
        tokens, seconds, budget = self._trials[arm.name]
        factor = 1.0 if cell.variant.budget is None else cell.variant.budget / budget
        return tokens * factor, seconds * factor

    def cached_tokens(self, cells: Sequence[PairCell], model: LatentModel, tokens: float) -> float:
        """Those of the largest chunk."""
        context = max(len(model.to_ids(pair.context)) for pair in self.pairs[: cells[-1].stop])
        return max(cell.units for cell in cells) * (context + tokens)

    @classmethod
    def examples(cls, samples: Sequence[Mapping[str, Any]], seed: int) -> tuple[Example, ...]:
        """The first pairs."""
        pairs: dict[str, list[Mapping[str, Any]]] = {}
        for row in samples:
            if row["seed"] == seed:
                pairs.setdefault(row["pair"], []).append(row)
        return tuple(_example(name, rows) for name, rows in list(pairs.items())[:SHOWN])


def write_cell(experiment: PairExperiment, model: LatentModel, cell: PairCell, every: Sequence[Pair]) -> list[Sample]:
    """Write the texts of one cell.

    Args:
        experiment: that the cell belongs to.
        cell: says which arm, seed and pairs.
        every: all pairs of the experiment.

    Raises:
        ExperimentError: the arm gave another number of samples.
    """
    arm, pairs = cell.variant.arm, every[cell.start : cell.stop]
    # The row's seed depends on the pair alone, so that all arms, however they are cut into cells, share it.
    seeds = [derive_seed(cell.seed, "pair", pair.id) for pair in pairs]
    task = Task(
        model=model,
        pairs=pairs,
        every=every,
        seeds=seeds,
        config=experiment.config(),
        rewards=experiment.rewards,
        budget=cell.variant.budget,
    )
    start = time.perf_counter()
    samples = ARMS[arm.method](task, arm.options)
    seconds = (time.perf_counter() - start) / len(pairs)
    if len(samples) != len(pairs):
        raise ExperimentError(
            f"method {arm.method!r} gave {len(samples)} samples for {len(pairs)} pairs; expected one for each, in order"
        )
    return [replace(sample, seconds=seconds) for sample in samples]


def _measure(name: str, samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    """Take a measure, and see that it gave one number for each sample."""
    values = np.asarray(MEASURES[name].take(samples, pairs, context), dtype=np.float64)
    if values.shape != (len(samples),):
        raise ExperimentError(
            f"the measure {name!r} gave an array {list(values.shape)} for {len(samples)} samples; expected one number "
            "for each, in order, NaN where there is none"
        )
    return values


def _example(name: str, rows: Sequence[Mapping[str, Any]]) -> Example:
    forms = {"rank": "rank {:.0f}", "base_nll": "NLL {:.2f}", "tokens": "{:,.0f} tokens"}
    texts = tuple(ArmText(row["arm"], fill(row["measures"], forms), (), (("", row["text"]),)) for row in rows)
    given = (("Context", rows[0]["context"]), ("Goal", rows[0]["terminal"]))
    return Example(name, f"{name}: {rows[0]['terminal']}", given, (), texts)
