"""Results of an experiment over pairs: means with intervals for each arm, tests, and all samples in one file."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from agents.experiments.cells import Cell, CellStore
from agents.experiments.folder import SAMPLES, json_lines
from agents.experiments.run_results import RunResults, TestedPair, compare_arms, plain_json, read_measures
from agents.experiments.spec import Experiment, Variant
from agents.experiments.statistics import Estimate, bootstrap_weights, estimate, means
from agents.log.chain import write_atomic

HEADLINE = "nearest"  # the measure of success


@dataclass(frozen=True)
class ArmResult:
    """One row of the tables.

    Attributes:
        name, arm, method, budget: of the variant; `arm` is its name without the budget.
        diegetic: whether the goal stood in the visible text.
        samples: written.
        measures: mean and interval over pairs, by measure.
    """

    name: str
    arm: str
    method: str
    budget: float | None
    diegetic: bool
    samples: int
    measures: Mapping[str, Estimate]


@final
@dataclass(frozen=True)
class Results(RunResults):
    """All numbers of a run.

    Attributes:
        id, title, model: of the experiment.
        pairs, seeds, spans: how many pairs, which seeds, spans per text.
        group: terminals that a right one is told from.
        reference: name of the arm that the others are tested against.
        judged: whether there was a judge.
        arms: in the order of the file.
        tests: of each other arm against the reference, by measure.
    """

    id: str
    title: str
    model: str
    pairs: int
    seeds: tuple[int, ...]
    spans: int
    group: int
    reference: str
    judged: bool
    arms: tuple[ArmResult, ...]
    tests: tuple[TestedPair, ...]

    @staticmethod
    def _read(data: Mapping[str, Any]) -> dict[str, Any]:
        return {"arms": tuple(ArmResult(**{**arm, "measures": read_measures(arm["measures"])}) for arm in data["arms"])}


def gather(
    experiment: Experiment, store: CellStore, cells: Sequence[Cell], count: int, *, group: int, names: Sequence[str]
) -> Results:
    """Compute the results of cells that are all done.

    Args:
        experiment: whose cells they are.
        store: holds them.
        cells: all cells of the first `count` pairs.
        count: pairs in use.
        group: terminals that a right one is told from.
        names: of the measures to take in.
    """
    variants, weights = experiment.variants(), bootstrap_weights(count)
    reference = experiment.reference or variants[0].name
    values = {variant.name: _values(experiment, store, cells, variant, count, names) for variant in variants}
    arms = tuple(
        ArmResult(
            name=variant.name,
            arm=variant.arm.name,
            method=variant.arm.method,
            budget=variant.budget,
            diegetic=variant.arm.options.diegetic,
            samples=count * len(experiment.seeds),
            measures={name: estimate(values[variant.name][name], weights) for name in names},
        )
        for variant in variants
    )
    by_measure = {name: {arm: measured[name] for arm, measured in values.items()} for name in names}
    return Results(
        id=experiment.id,
        title=experiment.title,
        model=experiment.model,
        pairs=count,
        seeds=experiment.seeds,
        spans=experiment.spans,
        group=group,
        reference=reference,
        judged=HEADLINE in names,
        arms=arms,
        tests=compare_arms(by_measure, reference, weights),
    )


def save_samples(folder: Path, store: CellStore, cells: Sequence[Cell], names: Sequence[str]) -> list[Path]:
    """Write all samples with their measures into `samples.jsonl`, and `samples.parquet` where pyarrow is installed.

    Returns:
        The files.

    Raises:
        RunWriteError: the file system refused.
    """
    rows: list[dict[str, Any]] = []
    for cell in cells:
        records, numbers = store.records(cell) or [], store.measures(cell)
        for index, record in enumerate(records):
            taken = {name: plain_json(float(numbers[name][index])) for name in names}
            texts = {"context": record.pair.context, "terminal": record.pair.terminal}
            rows.append(record.fields() | texts | {"measures": taken})
    path = folder / SAMPLES
    write_atomic(path, json_lines(rows))
    return [path, *_save_parquet(folder / "samples.parquet", rows)]


def _save_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return []
    # One column per measure; `details` differs from method to method, so it stays JSON.
    flat = [
        {key: value for key, value in row.items() if key not in ("measures", "details")}
        | {"details": json.dumps(row["details"], ensure_ascii=False)}
        | row["measures"]
        for row in rows
    ]
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), content)
    write_atomic(path, content.getvalue())
    return [path]


def _values(
    experiment: Experiment, store: CellStore, cells: Sequence[Cell], variant: Variant, count: int, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Means over seeds `[pairs]` of one arm, by measure."""
    by_seed = {name: np.full((len(experiment.seeds), count), np.nan) for name in names}
    for cell in cells:
        if cell.variant.name == variant.name:
            numbers, row = store.measures(cell), experiment.seeds.index(cell.seed)
            for name in names:
                by_seed[name][row, cell.start : cell.stop] = numbers[name]
    return {name: means(values) for name, values in by_seed.items()}
