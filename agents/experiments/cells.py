"""Cells: the units of work of an experiment, and their files.

A cell is one arm, one seed and one chunk of pairs. What is done is on the disk, each cell whole or not at all:

```
cells/NAME.jsonl          one sample per line
cells/NAME.measures.json  the numbers of each measure, one per sample
claims/NAME               held by the process that works on it, see `agents.experiments.folder`
```
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from agents.errors import RunDamaged
from agents.experiments.arms import Sample
from agents.experiments.folder import CELLS, CLAIMS, json_lines, make_folder
from agents.experiments.spec import Experiment, Variant
from agents.log.chain import write_atomic
from steer.data.pairs import Pair


@dataclass(frozen=True)
class Cell:
    """One unit of work: the pairs from `start` up to `stop` in one arm with one seed."""

    variant: Variant
    seed: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Its file name. It does not depend on how many pairs there are behind it."""
        return f"{self.variant.slug}.s{self.seed}.p{self.start:05d}-{self.stop:05d}"

    @property
    def row(self) -> str:
        """The row of the tables that it is counted in."""
        return self.variant.name

    @property
    def label(self) -> str:
        """What it is, for people."""
        return f"{self.variant.name}, seed {self.seed}, pairs {self.start}-{self.stop - 1}"


@dataclass(frozen=True)
class Record:
    """A sample and where it belongs.

    Attributes:
        arm: name of the variant.
        seed: of the experiment, not of the row.
        pair: what it was written for.
        sample: what was written.
    """

    arm: str
    seed: int
    pair: Pair
    sample: Sample

    def fields(self) -> dict[str, Any]:
        """As one flat JSON object."""
        return {"arm": self.arm, "seed": self.seed, "pair": self.pair.id, **asdict(self.sample)}


def plan_cells(experiment: Experiment, count: int) -> list[Cell]:
    """All cells for the first `count` pairs: chunk by chunk, and in each chunk seed by seed and arm by arm.

    So the arms of a run that is not finished have been written for nearly the same pairs.
    """
    return [
        Cell(variant, seed, start, min(start + experiment.chunk, count))
        for start in range(0, count, experiment.chunk)
        for seed in experiment.seeds
        for variant in experiment.variants()
    ]


@final
class CellStore:
    """The files of cells in the folder of a run.

    Args:
        folder: of the run.
        pairs: all pairs of the experiment.

    Raises:
        RunWriteError: the folders cannot be made.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair]) -> None:
        self.folder, self.pairs = folder, pairs
        make_folder(folder, CELLS, CLAIMS)

    def records(self, cell: Cell) -> list[Record] | None:
        """What was written in a cell; None where it is yet to be written.

        Raises:
            RunDamaged: the file does not hold the samples of this cell.
        """
        path, pairs = self._samples(cell), self.pairs[cell.start : cell.stop]
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return None
        records = []
        try:
            for line, pair in zip(lines, pairs, strict=True):
                fields = json.loads(line)
                if (fields.pop("arm"), fields.pop("seed"), fields.pop("pair")) != (
                    cell.variant.name,
                    cell.seed,
                    pair.id,
                ):
                    raise ValueError("a line of another cell")
                fields |= {name: tuple(fields[name]) for name in ("spans", "ids")}
                records.append(Record(cell.variant.name, cell.seed, pair, Sample(**fields)))
        except (ValueError, KeyError, TypeError) as error:
            raise RunDamaged(f"{path} was changed: {error}; delete it, and it is written again") from error
        return records

    def save_records(self, cell: Cell, records: Sequence[Record]) -> None:
        """Write the samples of a cell, whole or not at all.

        Raises:
            RunWriteError: the file system refused.
        """
        write_atomic(self._samples(cell), json_lines(record.fields() for record in records))

    def measures(self, cell: Cell) -> dict[str, np.ndarray]:
        """Numbers of a cell, float64 `[n]` by measure (NaN: undefined for that sample); none where none were taken.

        Raises:
            RunDamaged: the file does not hold the numbers of this cell.
        """
        path = self._measures(cell)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            numbers = {name: np.array(values, dtype=np.float64) for name, values in data.items()}
            if any(values.shape != (cell.stop - cell.start,) for values in numbers.values()):
                raise ValueError("another number of samples")
            return numbers
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise RunDamaged(f"{path} was changed: {error}; delete it, and it is measured again") from error

    def save_measures(self, cell: Cell, numbers: Mapping[str, np.ndarray]) -> None:
        """Write the numbers of a cell, whole or not at all.

        Raises:
            RunWriteError: the file system refused.
        """
        rows = {name: [None if np.isnan(v) else float(v) for v in values] for name, values in numbers.items()}
        write_atomic(self._measures(cell), json.dumps(rows) + "\n")

    def is_done(self, cell: Cell, measures: Sequence[str]) -> bool:
        """Whether a cell was written, and measured by all of `measures`."""
        return self._samples(cell).exists() and set(measures) <= self.measures(cell).keys()

    def _samples(self, cell: Cell) -> Path:
        return self.folder / CELLS / f"{cell.key}.jsonl"

    def _measures(self, cell: Cell) -> Path:
        return self.folder / CELLS / f"{cell.key}.measures.json"
