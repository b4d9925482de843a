"""`steer experiment` of a file with scenarios."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agents.cli._models import load_model
from agents.cli._output import Output
from agents.cli.experiment import RUNS, advice, board, show_forecast, show_outcome


def compare_plays(
    say: Output, file: Path, out: Path | None, limit: int | None, *, dry_run: bool, as_json: bool
) -> None:
    """Play the scenarios of an experiment in all its arms, and print the tables.

    Args:
        say: where to.
        file: of the experiment.
        out: folder of the run; by default `runs/ID`.
        limit: play only the first so many scenarios.
        dry_run: estimate instead.
        as_json: print one JSON document.
    """
    from agents.experiments.play_file import load_plays

    plays = load_plays(file)
    folder = out or RUNS / plays.id
    if dry_run:
        from agents.experiments.play_estimate import forecast_plays

        model = load_model(say, plays.experiment.model)
        with say.status("playing a small sample of each arm"):
            found = forecast_plays(plays, model, folder, limit=limit)
        show_forecast(say, found, as_json, unit="runs")
        return
    from agents.experiments.play_tables import play_markdown, play_tables
    from agents.experiments.plays import run_plays
    from agents.experiments.tables import rich_table

    def load() -> Any:
        return load_model(say, plays.experiment.model)

    with advice(say, file, folder), board(say, unit="goals", success="reached") as show:
        outcome = run_plays(plays, folder, load, limit=limit, on_progress=show)

    def tables(results: Any) -> Iterable[Any]:
        return map(rich_table, play_tables(results))

    show_outcome(say, outcome, as_json, what="goals", tables=tables, markdown=play_markdown)
