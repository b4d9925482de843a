"""Running an experiment over scenarios: play what is missing, measure it, compare; see `agents.experiments.work`.

A cell is an arm, a scenario and a seed. Its run is one of `agents.simulation.simulation`, resumed where it was stopped.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.experiments.bench import Embedder, installed_judge
from agents.experiments.folder import RESULTS, SAMPLES, TABLE, write_files
from agents.experiments.manifest import check_model
from agents.experiments.play_cells import Measured, PlayCell, measure_run, plan_plays, read_measured, save_measured
from agents.experiments.play_manifest import RUNS, cell_file, open_plays, read_plays
from agents.experiments.play_results import PlayResults, gather_plays, play_samples
from agents.experiments.play_spec import Plays, as_played
from agents.experiments.play_tables import play_markdown
from agents.experiments.work import Lazy, OnProgress, Outcome, Tally, run_cells
from agents.simulation.manifest import MANIFEST
from agents.simulation.simulation import resume_run, run_scenario


def run_plays(
    plays: Plays,
    folder: Path,
    load_model: Callable[[], Any],
    *,
    limit: int | None = None,
    open_judge: Callable[[], Embedder | None] = installed_judge,
    on_progress: OnProgress | None = None,
) -> Outcome[PlayResults]:
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
    cells, done = plan_plays(plays, limit), dict[str, Measured]()

    def look(cell: PlayCell, judged: bool) -> Tally | None:
        measured = read_measured(cell_file(folder, cell), cell, judged=judged)
        if measured is None:
            return None
        done[cell.key] = measured
        goals = measured.reached
        return Tally(
            done=1, texts=len(goals), hits=sum(goals.values()), tokens=measured.tokens, seconds=measured.seconds
        )

    def begin(judge: Embedder | None) -> Callable[[PlayCell], bool]:
        check_model(read_plays(folder).model, model())

        def do(cell: PlayCell) -> bool:
            run = folder / RUNS / cell.key
            written = play_cell(plays, cell, model(), run)
            save_measured(cell_file(folder, cell), measure_run(plays, cell, run, model(), judge))
            return written

        return do

    def report(judged: bool) -> tuple[PlayResults, list[Path]]:
        measured = [done[cell.key] for cell in cells]
        results = gather_plays(plays, cells, measured)
        samples = play_samples(plays, cells, measured, results.threshold)
        return results, write_files(
            folder, {RESULTS: results.to_json(), TABLE: play_markdown(results), SAMPLES: samples}
        )

    return run_cells(
        folder, cells, look=look, open_judge=open_judge, begin=begin, report=report, on_progress=on_progress
    )


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
