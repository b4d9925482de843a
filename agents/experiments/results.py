"""Results: means with intervals for each arm, paired tests against the reference, and all samples in one file."""

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import RunDamaged
from agents.experiments.cells import Cell, CellStore
from agents.experiments.folder import SAMPLES, json_lines
from agents.experiments.spec import Experiment, Variant
from agents.experiments.statistics import Comparison, Estimate, bootstrap_weights, compare, estimate, holm
from agents.log import write_atomic

HEADLINE = "nearest"  # the measure of success


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class TestedPair:
    """One arm against another on one measure.

    Attributes:
        measure, first, second: what is compared.
        comparison: the outcome.
        p_holm: p adjusted for all arms that are tested against `second` on this measure.
    """

    measure: str
    first: str
    second: str
    comparison: Comparison
    p_holm: float


@dataclasses.dataclass(frozen=True)
class Results:
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

    def test(self, measure: str, arm: str) -> TestedPair | None:
        """The test of an arm against the reference; None for the reference itself."""
        return next((t for t in self.tests if (t.measure, t.first) == (measure, arm)), None)

    def to_json(self) -> str:
        """As a JSON document; NaN is null."""
        return json.dumps(plain_json(dataclasses.asdict(self)), ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what `to_json` gave.

        Raises:
            RunDamaged: the file is missing or holds something else.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            arms = [{**arm, "measures": read_measures(arm["measures"])} for arm in data["arms"]]
            fields = {
                "seeds": tuple(data["seeds"]),
                "arms": tuple(ArmResult(**arm) for arm in arms),
                "tests": read_tests(data["tests"]),
            }
            return cls(**{**data, **fields})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(path, error) from error


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
    others = [variant.name for variant in variants if variant.name != reference]
    tests: list[TestedPair] = []
    for name in names:
        found = [compare(values[other][name], values[reference][name], weights) for other in others]
        adjusted = holm([comparison.p for comparison in found])
        tests += [
            TestedPair(name, other, reference, comparison, p)
            for other, comparison, p in zip(others, found, adjusted, strict=True)
        ]
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
        tests=tuple(tests),
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
    means = {}
    for name, values in by_seed.items():
        there = ~np.isnan(values)
        total = np.where(there, values, 0.0).sum(0)
        means[name] = np.divide(total, there.sum(0), out=np.full(count, np.nan), where=there.any(0))
    return means


def plain_json(value: Any) -> Any:
    """A value that JSON can hold: what is not finite becomes null, sequences become lists."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value


def read_measures(data: Mapping[str, Any]) -> dict[str, Estimate]:
    """Estimates by measure, as `plain_json` wrote them."""
    return {name: Estimate(**_numbers(value)) for name, value in data.items()}


def read_tests(data: Sequence[Mapping[str, Any]]) -> tuple[TestedPair, ...]:
    """Tests as `plain_json` wrote them."""
    found = []
    for test in data:
        comparison = test["comparison"]
        difference = Estimate(**_numbers(comparison["difference"]))
        compared = Comparison(**{**_numbers(comparison), "difference": difference})
        found.append(TestedPair(**{**_numbers(test), "comparison": compared}))
    return tuple(found)


def unreadable(path: Path, error: Exception) -> RunDamaged:
    """That a file holds no results, and what to do."""
    return RunDamaged(
        f"{path} holds no results of an experiment ({error}); give the `steer experiment` command of the run again, "
        "which makes it anew"
    )


def _numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as `plain_json` wrote them: null was NaN."""
    return {name: math.nan if value is None else value for name, value in data.items()}
