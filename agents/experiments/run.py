"""Running an experiment: do the cells that are missing, compare, report.

Whatever is done is on the disk, cell by cell, so a run is safe to stop, to repeat and to share: two processes on one
folder take different cells, and each ends when all are done.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

from agents.experiments.figures import draw
from agents.experiments.folder import (
    CELLS,
    CLAIMS,
    RESULTS,
    TABLE,
    check_plain,
    claim,
    make_folder,
    sample_files,
    write_files,
)
from agents.experiments.kind import Cell, Kind, Tally
from agents.experiments.load import kind_of
from agents.experiments.manifest import check_model, existing_run, read_manifest, start_run
from agents.experiments.measures import Embedder, installed_judge
from agents.experiments.results import Results, summarise
from agents.experiments.seals import REPORTED, seal_report
from agents.experiments.spec import Experiment
from agents.experiments.tables import markdown
from steer.models.latent_model import LatentModel

POLL_SECONDS = 0.5
OnProgress = Callable[[Mapping[str, Tally], Cell | None], None]  # by arm; and the cell, or None at the start


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: of the run.
        cells: of the experiment.
        written, measured: cells that this call wrote (or went on with), and those that it only measured.
        results: all numbers.
        files: that were made of them.
    """

    folder: Path
    cells: int
    written: int
    measured: int
    results: Results
    files: tuple[Path, ...]


def run_experiment(
    experiment: Experiment,
    folder: Path,
    load_model: Callable[[], LatentModel],
    *,
    limit: int | None = None,
    open_judge: Callable[[], Embedder | None] = installed_judge,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Run an experiment in a folder, or go on with it; where all is done, only the report is made again.

    Args:
        experiment: what to run, of any kind.
        folder: of the run; a new one, or one that was started with the same experiment.
        load_model: called only if there is something to write or to measure.
        limit: use only so many pairs or scenarios, whatever the experiment says.
        open_judge: gives the judge, or None to leave out what needs it; called only if there is something to judge.
        on_progress: called at the start and after each cell with all tallies by arm, and the cell.

    Raises:
        ExperimentError, ScenarioError, CorpusError, TextError: the items cannot be used.
        GoalError: the model cannot use a goal, a name or an opening.
        RunExists: the folder holds something else.
        RunMismatch: it holds a run of another experiment, scenarios or model; says in what they differ.
        RunDamaged: files of the run were changed.
        RunWriteError: the file system refused.
        SteerError: an arm cannot be written with this model.
    """
    model = cache(load_model)  # loaded when it is first needed
    kind = open_run(experiment, folder, model)
    work = _Work(kind, folder, kind.plan(limit), on_progress)
    written, measured = work.do_all(model, open_judge)
    with claim(folder / CLAIMS / "report", wait=True):
        results, files = _report(kind, folder, work.cells, judged=work.judged)
    return Outcome(folder, len(work.cells), written, measured, results, tuple(files))


def open_run(experiment: Experiment, folder: Path, load_model: Callable[[], LatentModel]) -> Kind[Any]:
    """Start a run in a folder, or find that the one in it is of the same experiment.

    Raises:
        RunExists, RunMismatch, RunDamaged, RunWriteError: see `run_experiment`.
    """
    check_plain(folder)
    make_folder(folder, CLAIMS, CELLS)
    with claim(folder / CLAIMS / "start", wait=True):
        kind = existing_run(kind_of(experiment), experiment, folder)
        if kind is None:
            kind = kind_of(experiment).make(experiment, load_model)
            start_run(folder, kind, load_model())
    return kind


@final
class _Work:
    """The cells of a run, and which of them are done, by us or by others."""

    def __init__(self, kind: Kind[Any], folder: Path, cells: Sequence[Cell], on_progress: OnProgress | None) -> None:
        self.kind, self.folder, self.cells, self.judged = kind, folder, cells, True
        self._tell = on_progress or (lambda tallies, cell: None)
        self._done: set[str] = set()
        self._tallies: dict[str, Tally] = {}
        for cell in cells:
            self._tallies[cell.row] = self._tallies.get(cell.row, Tally()) + Tally(cells=1)

    def do_all(self, model: Callable[[], LatentModel], open_judge: Callable[[], Embedder | None]) -> tuple[int, int]:
        """Do what nobody has claimed, until all is done; counts the cells that we wrote, and only measured."""
        counts, judge = {True: 0, False: 0}, None
        if left := [cell for cell in self.cells if not self._is_done(cell)]:
            judge = open_judge()
            self.judged = judge is not None
            left = [cell for cell in left if not self._is_done(cell)]
        if not left:
            return 0, 0
        check_model(read_manifest(self.folder).model, model())
        context = self.kind.context(model(), judge)
        self._tell(self._tallies, None)
        while left:
            pending, left = left, []
            for cell in pending:
                with claim(self.folder / CLAIMS / cell.key) as mine:
                    ours = mine and not self._is_done(cell)  # another process may have done it since we looked
                    if ours:
                        counts[self.kind.do(self.folder, cell, context)] += 1
                if not self._is_done(cell):
                    left.append(cell)
                elif ours:
                    self._tell(self._tallies, cell)
            if len(left) == len(pending):
                time.sleep(POLL_SECONDS)  # others are doing all that is left; if one of them dies, we take over
        return counts[True], counts[False]

    def _is_done(self, cell: Cell) -> bool:
        """Whether a cell is done; what is new goes into the tallies."""
        if cell.key not in self._done and (found := self.kind.look(self.folder, cell, judged=self.judged)) is not None:
            self._done.add(cell.key)
            self._tallies[cell.row] += found
        return cell.key in self._done


def _report(kind: Kind[Any], folder: Path, cells: Sequence[Cell], *, judged: bool) -> tuple[Results, list[Path]]:
    """The results of cells that are all done, and the files that are made of them."""
    observed = kind.observe(folder, cells, judged=judged)
    results = summarise(kind, observed, judged=judged)
    texts = {RESULTS: results.to_json(), TABLE: markdown(results), **sample_files(observed.samples)}
    files = write_files(folder, texts | draw(results))
    return results, [*files, *seal_report(folder, REPORTED)]
