"""Running an experiment: write what is missing, measure it, compare, report; see `agents.experiments.work`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import ExperimentError
from agents.experiments.arms import ARMS, Task
from agents.experiments.bench import Bench, Embedder, installed_judge, takeable
from agents.experiments.cells import Cell, CellStore, Record, plan_cells
from agents.experiments.figures import save_figures
from agents.experiments.folder import CLAIMS, RESULTS, TABLE, claim, make_folder, write_files
from agents.experiments.manifest import MANIFEST, check_model, check_settings, read_run, settings_of, start_run
from agents.experiments.measures import MEASURES
from agents.experiments.pairs import load_pairs
from agents.experiments.results import HEADLINE, Results, gather, save_samples
from agents.experiments.spec import Experiment
from agents.experiments.tables import markdown
from agents.experiments.work import Lazy, OnProgress, Outcome, Tally, run_cells
from steer.data.pairs import Pair
from steer.noise import derive_seed


def run_experiment(
    experiment: Experiment,
    folder: Path,
    load_model: Callable[[], Any],
    *,
    limit: int | None = None,
    open_judge: Callable[[], Embedder | None] = installed_judge,
    on_progress: OnProgress | None = None,
) -> Outcome[Results]:
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
    store, cells = CellStore(folder, pairs), plan_cells(experiment, count)

    def look(cell: Cell, judged: bool) -> Tally | None:
        return _tally(store, cell) if store.is_done(cell, takeable(MEASURES, judged=judged)) else None

    def begin(judge: Embedder | None) -> Callable[[Cell], bool]:
        check_model(read_run(folder)[0].model, model())
        bench = Bench(model(), pairs, judge, reached=experiment.reached)
        names = takeable(MEASURES, judged=judge is not None)
        return lambda cell: _do(experiment, store, cell, bench, names)

    def report(judged: bool) -> tuple[Results, list[Path]]:
        names = takeable(MEASURES, judged=judged)
        group = len(Bench(None, pairs, None, reached=1.0).rivals(pairs[0]))
        results = gather(experiment, store, cells, count, group=group, names=names)
        files = write_files(folder, {RESULTS: results.to_json(), TABLE: markdown(results)})
        return results, [*files, *save_samples(folder, store, cells, names), *save_figures(results, folder)]

    return run_cells(
        folder, cells, look=look, open_judge=open_judge, begin=begin, report=report, on_progress=on_progress
    )


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
    make_folder(folder, CLAIMS)
    with claim(folder / CLAIMS / "start", wait=True):
        pairs = existing_run(experiment, folder)
        if pairs is None:
            pairs = load_pairs(experiment.pairs, model)
            start_run(folder, experiment, model(), pairs)
    return pairs


def _do(experiment: Experiment, store: CellStore, cell: Cell, bench: Bench, names: Sequence[str]) -> bool:
    """Write a cell if it is not there, and take the measures that it lacks; says whether it was written."""
    there = store.records(cell)
    records = write_cell(experiment, bench.model, cell, store.pairs) if there is None else there
    if there is None:
        store.save_records(cell, records)
    numbers = store.measures(cell)
    numbers |= {name: _measure(name, records, bench) for name in names if name not in numbers}
    store.save_measures(cell, numbers)
    return there is None


def _measure(name: str, records: list[Record], bench: Bench) -> np.ndarray:
    """Take a measure, and see that it gave one number for each record."""
    values = np.asarray(MEASURES[name].take(records, bench), dtype=np.float64)
    if values.shape != (len(records),):
        raise ExperimentError(
            f"the measure {name!r} gave an array {list(values.shape)} for {len(records)} records; expected one number "
            "for each, in order, NaN where there is none"
        )
    return values


def _tally(store: CellStore, cell: Cell) -> Tally:
    """What a cell that is done adds to the tally of its arm."""
    sums = {name: float(np.nansum(values)) for name, values in store.measures(cell).items()}
    return Tally(
        done=1,
        texts=cell.stop - cell.start,
        hits=sums.get(HEADLINE, float("nan")),
        tokens=int(sums.get("tokens", 0)),
        seconds=sums.get("seconds", 0.0),
    )
