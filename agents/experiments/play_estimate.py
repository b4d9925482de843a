"""What an experiment over scenarios will cost: from cells that are done, else from a round of turns in each arm."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.experiments.estimate import ArmForecast, Forecast, peak_bytes
from agents.experiments.play_cells import Measured, PlayCell, plan_plays, read_measured
from agents.experiments.play_manifest import cell_file, holds_plays
from agents.experiments.play_spec import Plays, as_played
from agents.scenarios.schema import override
from agents.simulation.simulation import run_scenario


def forecast_plays(plays: Plays, model: Any, folder: Path, *, limit: int | None = None) -> Forecast:
    """Estimate what is left. Writes nothing into the folder.

    A sample is a single round of turns, whose goals are due at its end. Spans at full weight need no draft, so a search
    may cost half as much again as is said.

    Args:
        plays: the experiment.
        model: a `LatentModel`.
        folder: of a run that may have been started.
        limit: as in `run_plays`.

    Returns:
        The forecast; what it calls texts are runs.

    Raises:
        RunMismatch: the folder holds a run of another experiment.
        RunDamaged: files of the run were changed.
    """
    holds_plays(plays, folder)
    cells = plan_plays(plays, limit)
    found = {cell.key: read_measured(cell_file(folder, cell), cell, judged=False) for cell in cells}
    arms = []
    for arm in plays.experiment.arms:
        own = [cell for cell in cells if cell.arm == arm]
        if not own:
            continue
        left = [cell for cell in own if found[cell.key] is None]
        done = [measured for cell in own if (measured := found[cell.key]) is not None]
        tokens, seconds = _rates_of_done(done) if done or not left else _trial(plays, own[0], model)
        turns = sum(cell.scenario.turns for cell in left)
        arms.append(ArmForecast(arm.name, len(left), round(tokens * turns), seconds * turns, bool(done)))
    return Forecast(
        arms=tuple(arms),
        cells=len(cells),
        done=sum(measured is not None for measured in found.values()),
        tokens=sum(arm.tokens for arm in arms),
        seconds=sum(arm.seconds for arm in arms),
        memory=peak_bytes(model),
    )


def _rates_of_done(done: Sequence[Measured]) -> tuple[float, float]:
    """Tokens and seconds per turn."""
    turns = sum(len(measured.turns) for measured in done) or np.inf
    return sum(measured.tokens for measured in done) / turns, sum(measured.seconds for measured in done) / turns


def _trial(plays: Plays, cell: PlayCell, model: Any) -> tuple[float, float]:
    """Tokens and seconds per turn of one round of turns."""
    turns = min(cell.scenario.turns, len(cell.scenario.characters))
    scenario = override(as_played(plays, cell.arm, cell.scenario, cell.seed), turns=turns)
    with tempfile.TemporaryDirectory() as folder:
        summary = run_scenario(scenario, model, Path(folder) / "run", twin=False)
    return summary.tokens / summary.turns, summary.seconds / summary.turns
