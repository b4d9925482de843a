"""Running an experiment: write what is missing, measure it, compare, report. Safe to stop, to repeat and to share.

Whatever is done is on the disk, cell by cell; see `agents.experiments.cells`. Two processes on one folder take
different cells, and each ends when all are done.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from agents.errors import ExperimentError, RunWriteError
from agents.experiments.arms import ARMS, Task
from agents.experiments.bench import Bench, Embedder, installed_judge, takeable
from agents.experiments.cells import CLAIMS, Cell, CellStore, Record, claim, plan_cells
from agents.experiments.figures import save_figures
from agents.experiments.manifest import MANIFEST, check_model, check_settings, read_run, settings_of, start_run
from agents.experiments.measures import MEASURES
from agents.experiments.pairs import load_pairs
from agents.experiments.results import HEADLINE, RESULTS, Results, gather, save_samples
from agents.experiments.sharing import share_work
from agents.experiments.spec import Experiment
from agents.experiments.tables import markdown
from agents.log import write_atomic
from steer.pairs import Pair
from steer.sampling import derive_seed

TABLE = "table.md"


@dataclass
class Tally:
    """How far one arm is.

    Attributes:
        cells, done: of it, in all and so far.
        texts: written so far.
        hits: sum of the measure of success over them; NaN where it is not taken.
        tokens, seconds: spent on them.
    """

    cells: int = 0
    done: int = 0
    texts: int = 0
    hits: float = 0.0
    tokens: int = 0
    seconds: float = 0.0


OnProgress = Callable[[dict[str, Tally], Cell | None], None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: of the run.
        cells: of the experiment.
        written, measured: cells that this call wrote, and those that it only measured.
        results: all numbers.
        files: that were made of them.
    """

    folder: Path
    cells: int
    written: int
    measured: int
    results: Results
    files: tuple[Path, ...]


@final
class Lazy:
    """Something that is made when it is first needed, and kept.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: list[Any] = []

    def __call__(self) -> Any:
        """The thing."""
        if not self._made:
            self._made.append(self._make())
        return self._made[0]


@dataclass
class _Work:
    """What the steps of one call share."""

    experiment: Experiment
    store: CellStore
    cells: list[Cell]
    tallies: dict[str, Tally] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    written: int = 0
    measured: int = 0


def run_experiment(
    experiment: Experiment,
    folder: Path,
    load_model: Callable[[], Any],
    *,
    limit: int | None = None,
    open_judge: Callable[[], Embedder | None] = installed_judge,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Run an experiment in a folder, or go on with it; where all is done, only the report is made again.

    Args:
        experiment: what to run.
        folder: of the run; a new one, or one that was started with the same experiment.
        load_model: gives the `LatentModel`; called only if there is something to write or to measure.
        limit: use only so many pairs, whatever the experiment says.
        open_judge: gives the judge, or None to leave out what needs it; called only if there is something to judge.
        on_progress: called at the start and after each cell with all tallies by arm, and the cell.

    Raises:
        ExperimentError, CorpusError, TextError: the pairs cannot be used.
        RunExists: the folder holds something else.
        RunMismatch: it holds a run of another experiment or model; says in what they differ.
        RunDamaged: files of the run were changed.
        RunWriteError: the file system refused.
        SteerError: an arm cannot be written with this model.
    """
    model = Lazy(load_model)
    pairs = _open_run(experiment, folder, model)
    count = min(len(pairs), limit or experiment.limit or len(pairs))
    work = _Work(experiment, CellStore(folder, pairs), plan_cells(experiment, count))
    names = list(MEASURES)
    if not all(work.store.is_done(cell, names) for cell in work.cells):
        judge = open_judge()
        names = takeable(MEASURES, judged=judge is not None)
        if not all(work.store.is_done(cell, names) for cell in work.cells):
            check_model(read_run(folder)[0].model, model())
            bench = Bench(model(), pairs, judge, reached=experiment.reached)
            _work_off(work, bench, names, on_progress)
    with claim(folder / CLAIMS / "report", wait=True):
        group = len(Bench(None, pairs, None, reached=1.0).rivals(pairs[0]))
        results = gather(experiment, work.store, work.cells, count, group=group, names=names)
        files = _report(folder, work, results, names)
    return Outcome(folder, len(work.cells), work.written, work.measured, results, tuple(files))


def existing_run(experiment: Experiment, folder: Path) -> list[Pair] | None:
    """The pairs of a run of this experiment that was started in a folder; None where none was.

    Raises:
        RunMismatch, RunDamaged: see `run_experiment`.
    """
    if not (folder / MANIFEST).exists():
        return None
    manifest, pairs = read_run(folder)
    check_settings(manifest.settings, settings_of(experiment), folder)
    return pairs


def write_cell(experiment: Experiment, model: Any, cell: Cell, every: Sequence[Pair]) -> list[Record]:
    """Write the texts of one cell.

    Args:
        experiment: that the cell belongs to.
        model: a `LatentModel`.
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
        spans=experiment.spans,
        sampling=experiment.sampling.config(),
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
    return [
        Record(cell.variant.name, cell.seed, pair, replace(sample, seconds=seconds))
        for pair, sample in zip(pairs, samples, strict=True)
    ]


def _open_run(experiment: Experiment, folder: Path, model: Lazy) -> list[Pair]:
    """Start a run in the folder, or find that the one in it is of the same experiment."""
    try:
        (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunWriteError(f"cannot write {folder}: {error.strerror}") from error
    with claim(folder / CLAIMS / "start", wait=True):
        pairs = existing_run(experiment, folder)
        if pairs is None:
            pairs = load_pairs(experiment.pairs, model)
            start_run(folder, experiment, model(), pairs)
    return pairs


def _work_off(work: _Work, bench: Bench, names: Sequence[str], on_progress: OnProgress | None) -> None:
    """Do every cell that is missing, sharing them with other processes, until none is."""
    for cell in work.cells:
        work.tallies.setdefault(cell.variant.name, Tally()).cells += 1
    _take_in(work, work.cells, names)
    if on_progress:
        on_progress(work.tallies, None)

    def after(cell: Cell, ours: bool) -> None:
        _take_in(work, [cell], names)
        if ours and on_progress:
            on_progress(work.tallies, cell)

    share_work(
        [cell for cell in work.cells if cell.key not in work.done],
        claimed=work.store.claim,
        is_done=lambda cell: work.store.is_done(cell, names),
        do=lambda cell: _do(work, cell, bench, names),
        after=after,
    )


def _do(work: _Work, cell: Cell, bench: Bench, names: Sequence[str]) -> None:
    """Write a cell if it is not there, and take the measures that it lacks."""
    store = work.store
    records = store.records(cell)
    if records is None:
        records = write_cell(work.experiment, bench.model, cell, store.pairs)
        store.save_records(cell, records)
        work.written += 1
    else:
        work.measured += 1
    numbers = store.measures(cell)
    numbers |= {name: _measure(name, records, bench) for name in names if name not in numbers}
    store.save_measures(cell, numbers)


def _measure(name: str, records: list[Record], bench: Bench) -> np.ndarray:
    """Take a measure, and see that it gave one number for each record."""
    values = np.asarray(MEASURES[name].take(records, bench), dtype=np.float64)
    if values.shape != (len(records),):
        raise ExperimentError(
            f"the measure {name!r} gave an array {list(values.shape)} for {len(records)} records; expected one number "
            "for each, in order, NaN where there is none"
        )
    return values


def _take_in(work: _Work, cells: Sequence[Cell], names: Sequence[str]) -> None:
    """Add cells that are done by now to the tallies."""
    for cell in cells:
        if cell.key in work.done or not work.store.is_done(cell, names):
            continue
        work.done.add(cell.key)
        numbers, tally = work.store.measures(cell), work.tallies[cell.variant.name]
        tally.done += 1
        tally.texts += cell.stop - cell.start
        tally.hits += float(np.nansum(numbers[HEADLINE])) if HEADLINE in numbers else float("nan")
        tally.tokens += int(np.nansum(numbers["tokens"])) if "tokens" in numbers else 0
        tally.seconds += float(np.nansum(numbers["seconds"])) if "seconds" in numbers else 0.0


def _report(folder: Path, work: _Work, results: Results, names: Sequence[str]) -> list[Path]:
    """Write all files that are made of the results."""
    write_atomic(folder / RESULTS, results.to_json())
    write_atomic(folder / TABLE, markdown(results))
    files = [folder / RESULTS, folder / TABLE]
    return [*files, *save_samples(folder, work.store, work.cells, names), *save_figures(results, folder)]
