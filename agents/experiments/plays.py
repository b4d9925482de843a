"""Running an experiment over scenarios: play what is missing, measure it, compare. Safe to stop, to repeat, to share.

A cell is an arm, a scenario and a seed. Its run is one of `agents.simulation`, resumed where it was stopped.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.experiments.bench import Embedder, installed_judge
from agents.experiments.cells import claim
from agents.experiments.manifest import check_model
from agents.experiments.play_cells import Measured, PlayCell, measure_run, plan_plays, read_measured, save_measured
from agents.experiments.play_manifest import CELLS, CLAIMS, RUNS, TABLE, open_plays, read_plays
from agents.experiments.play_results import PlayResults, gather_plays, play_samples
from agents.experiments.play_spec import Plays, as_played
from agents.experiments.play_tables import play_markdown
from agents.experiments.results import RESULTS, SAMPLES
from agents.experiments.runner import Lazy, Tally
from agents.experiments.sharing import share_work
from agents.log import write_atomic
from agents.manifest import MANIFEST
from agents.simulation import resume_run, run_scenario

OnPlay = Callable[[dict[str, Tally], PlayCell | None], None]


@dataclass(frozen=True)
class PlayOutcome:
    """What a run came to.

    Attributes:
        folder: of the run.
        cells: of the experiment.
        written, measured: cells that this call played (or went on with), and those that it only measured.
        results: all numbers.
        files: that were made of them.
    """

    folder: Path
    cells: int
    written: int
    measured: int
    results: PlayResults
    files: tuple[Path, ...]


@dataclass
class _Work:
    """What the steps of one call share."""

    plays: Plays
    folder: Path
    cells: list[PlayCell]
    judged: bool
    tallies: dict[str, Tally] = field(default_factory=dict)
    done: dict[str, Measured] = field(default_factory=dict)
    written: int = 0
    measured: int = 0

    def path(self, cell: PlayCell) -> Path:
        return self.folder / CELLS / f"{cell.key}.json"

    def look(self, cell: PlayCell) -> bool:
        """Whether a cell is done, by us or by others; what is new goes into the tallies."""
        if cell.key in self.done:
            return True
        measured = read_measured(self.path(cell), cell, judged=self.judged)
        if measured is None:
            return False
        self.done[cell.key], tally = measured, self.tallies[cell.arm.name]
        tally.done += 1
        tally.texts += len(measured.reached)
        tally.hits += sum(measured.reached.values())
        tally.tokens += measured.tokens
        tally.seconds += measured.seconds
        return True


def run_plays(
    plays: Plays,
    folder: Path,
    load_model: Callable[[], Any],
    *,
    limit: int | None = None,
    open_judge: Callable[[], Embedder | None] = installed_judge,
    on_progress: OnPlay | None = None,
) -> PlayOutcome:
    """Run an experiment over scenarios in a folder, or go on with it; where all is done, only the report is made again.

    Args:
        plays: what to run.
        folder: of the run; a new one, or one that was started with the same experiment.
        load_model: gives the `LatentModel`; called only if there is something to play or to measure.
        limit: play only the first so many scenarios.
        open_judge: gives the judge, or None to leave out what needs it.
        on_progress: called at the start and after each cell with all tallies by arm (of goals that the runs count as
            reached), and the cell.

    Raises:
        GoalError: the model cannot use a goal, a name or an opening.
        RunExists: the folder holds something else.
        RunMismatch: it holds a run of another experiment, scenarios or model; says in what they differ.
        RunDamaged: files of the run were changed.
        RunWriteError: the file system refused.
    """
    model = Lazy(load_model)
    open_plays(plays, folder, model)
    work = _Work(plays, folder, plan_plays(plays, limit), judged=True)
    for cell in work.cells:
        work.tallies.setdefault(cell.arm.name, Tally()).cells += 1
    if not all([work.look(cell) for cell in work.cells]):
        judge = open_judge()
        work.judged = judge is not None
        if on_progress:
            on_progress(work.tallies, None)
        if not all([work.look(cell) for cell in work.cells]):
            check_model(read_plays(folder).model, model())
            _work_off(work, model(), judge, on_progress)
    measured = [work.done[cell.key] for cell in work.cells]
    with claim(folder / CLAIMS / "report", wait=True):
        results = gather_plays(plays, work.cells, measured)
        write_atomic(folder / RESULTS, results.to_json())
        write_atomic(folder / TABLE, play_markdown(results))
        write_atomic(folder / SAMPLES, play_samples(plays, work.cells, measured, results.threshold))
    files = tuple(folder / name for name in (RESULTS, TABLE, SAMPLES))
    return PlayOutcome(folder, len(work.cells), work.written, work.measured, results, files)


def play_cell(plays: Plays, cell: PlayCell, model: Any, run: Path) -> bool:
    """Play a cell, or go on with it.

    Args:
        plays: the experiment.
        cell: of it.
        model: a `LatentModel`.
        run: folder for it.

    Returns:
        Whether there was anything to play.
    """
    if (run / MANIFEST).exists():
        return resume_run(run, model).status == "finished"
    if run.exists():  # it was stopped before its first turn; nobody else has the claim
        shutil.rmtree(run)
    run_scenario(as_played(plays, cell.arm, cell.scenario, cell.seed), model, run, twin=False)
    return True


def _work_off(work: _Work, model: Any, judge: Embedder | None, on_progress: OnPlay | None) -> None:
    def do(cell: PlayCell) -> None:
        run = work.folder / RUNS / cell.key
        if play_cell(work.plays, cell, model, run):
            work.written += 1
        else:
            work.measured += 1
        save_measured(work.path(cell), measure_run(work.plays, cell, run, model, judge))

    def after(cell: PlayCell, ours: bool) -> None:
        work.look(cell)
        if ours and on_progress:
            on_progress(work.tallies, cell)

    share_work(
        [cell for cell in work.cells if cell.key not in work.done],
        claimed=lambda cell: claim(work.folder / CLAIMS / cell.key),
        is_done=work.look,
        do=do,
        after=after,
    )
