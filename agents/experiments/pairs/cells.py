"""Cells of an experiment over pairs: one arm, one seed and one chunk of pairs, and their files.

What is done is on the disk, each cell whole or not at all:

```
cells/NAME.jsonl          one sample per line
cells/NAME.measures.json  the numbers of each measure, one per sample, and the seal of the samples that they are of
```

Both end with a line that seals them, see `agents.experiments.seals`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import RunDamaged
from agents.experiments.folder import CELLS, json_lines
from agents.experiments.pairs.spec import PairExperiment, Variant
from agents.experiments.pairs.writing import Sample
from agents.experiments.seals import read_sealed, write_sealed
from steer.data.pairs import Pair


@dataclass(frozen=True)
class PairCell:
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

    @property
    def units(self) -> int:
        """Texts in it."""
        return self.stop - self.start

    @property
    def size(self) -> int:
        """How much work it is: texts."""
        return self.units

    def fields(self, pair: Pair) -> dict[str, Any]:
        """What a line of it says of the place of its sample."""
        return {"arm": self.variant.name, "seed": self.seed, "pair": pair.id}


def plan_cells(experiment: PairExperiment, count: int) -> list[PairCell]:
    """All cells for the first `count` pairs: chunk by chunk, and in each chunk seed by seed and arm by arm.

    So the arms of a run that is not finished have been written for nearly the same pairs.
    """
    return [
        PairCell(variant, seed, start, min(start + experiment.chunk, count))
        for start in range(0, count, experiment.chunk)
        for seed in experiment.seeds
        for variant in experiment.variants()
    ]


def read_samples(folder: Path, cell: PairCell, pairs: Sequence[Pair]) -> list[Sample] | None:
    """What was written in a cell; None where it is yet to be written.

    Args:
        folder: of the run.
        cell: of it.
        pairs: those of the cell.

    Raises:
        RunDamaged: the file does not hold the samples of this cell.
    """
    path = _samples(folder, cell)
    samples = []
    try:
        lines = read_sealed(folder, path)[0].split("\n")[:-1]
        for line, pair in zip(lines, pairs, strict=True):
            fields = json.loads(line)
            if any(fields.pop(name) != value for name, value in cell.fields(pair).items()):
                raise ValueError("a line of another cell")
            samples.append(Sample(**fields | {name: tuple(fields[name]) for name in ("spans", "ids")}))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunDamaged(f"{path} was changed: {error}; delete it, and it is written again") from error
    return samples


def save_samples(folder: Path, cell: PairCell, pairs: Sequence[Pair], samples: Sequence[Sample]) -> None:
    """Write the samples of a cell, whole or not at all.

    Raises:
        RunWriteError: the file system refused.
    """
    rows = (cell.fields(pair) | asdict(sample) for pair, sample in zip(pairs, samples, strict=True))
    write_sealed(folder, _samples(folder, cell), json_lines(rows))


def read_measures(folder: Path, cell: PairCell) -> dict[str, np.ndarray]:
    """Numbers of a cell, float64 `[n]` by measure (NaN: undefined for that sample); none where none were taken of it.

    Raises:
        RunDamaged: the file does not hold the numbers of this cell.
    """
    path = _measures(folder, cell)
    try:
        data = json.loads(read_sealed(folder, path)[0])
        if data["samples"] != _seal(folder, cell):
            return {}  # they were taken of other samples
        numbers = {name: np.array(values, dtype=np.float64) for name, values in data["measures"].items()}
        if any(values.shape != (cell.units,) for values in numbers.values()):
            raise ValueError("another number of samples")
        return numbers
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunDamaged(f"{path} was changed: {error}; delete it, and it is measured again") from error


def save_measures(folder: Path, cell: PairCell, numbers: Mapping[str, np.ndarray]) -> None:
    """Write the numbers of a cell, whole or not at all.

    Raises:
        RunWriteError: the file system refused.
    """
    rows = {name: [None if np.isnan(v) else float(v) for v in values] for name, values in numbers.items()}
    content = json.dumps({"samples": _seal(folder, cell), "measures": rows})
    write_sealed(folder, _measures(folder, cell), content + "\n")


def is_done(folder: Path, cell: PairCell, measures: Sequence[str]) -> bool:
    """Whether a cell was written, and measured by all of `measures`."""
    return _samples(folder, cell).exists() and set(measures) <= read_measures(folder, cell).keys()


def _seal(folder: Path, cell: PairCell) -> str | None:
    """The seal of a cell's samples; None where there are none."""
    path = _samples(folder, cell)
    try:
        return read_sealed(folder, path)[1]
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunDamaged(f"{path} was changed: {error}; delete it, and it is written again") from error


def _samples(folder: Path, cell: PairCell) -> Path:
    return folder / CELLS / f"{cell.key}.jsonl"


def _measures(folder: Path, cell: PairCell) -> Path:
    return folder / CELLS / f"{cell.key}.measures.json"
