"""`steer experiment`."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli._models import load_model
from agents.cli._options import JsonOption
from agents.cli._output import Output, output

RUNS = Path("runs")

EXAMPLE = "steer experiment examples/experiments/guidance.yaml --limit 20"


def experiment(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file, such as those in examples/experiments/.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run; by default runs/ID. Given again, it is continued."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=2, help="Use only the first so many pairs, or scenarios.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate tokens, time and memory from a small sample; write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare ways of writing on the same contexts and seeds.

    A FILE with `scenarios` in place of `pairs` compares ways of planning on whole simulations. Prints the tables, as
    Markdown.

    It may be stopped and given again, and given several times at once: the processes share the work.
    """
    say = output(ctx)
    from agents.experiments.load import kind_of, load_experiment

    loaded = load_experiment(file)
    words, folder = kind_of(loaded).captions, out or RUNS / loaded.id
    if dry_run:
        from agents.experiments.forecast import forecast

        model = load_model(say, loaded.model)
        with say.status("writing a small sample of each arm"):
            found = forecast(loaded, model, folder, limit=limit)
        show_forecast(say, found, as_json, unit=words.unit)
        return
    from agents.experiments.run import run_experiment

    with advice(say, file, folder), board(say, unit=words.counted, success=words.progress) as show:
        outcome = run_experiment(loaded, folder, lambda: load_model(say, loaded.model), limit=limit, on_progress=show)
    show_outcome(say, outcome, as_json)


def show_outcome(say: Output, outcome: Any, as_json: bool) -> None:
    """Say how a run (an `agents.experiments.run.Outcome`) ended, and print its tables or one JSON document."""
    from agents.experiments.tables import captions_of, markdown, rich_tables

    if outcome.written + outcome.measured == 0:
        say.note(f"nothing to do: all {outcome.cells} cells of this experiment are done in {outcome.folder}")
    if not outcome.results.judged:
        what = captions_of(outcome.results).judging
        say.note(f"{what} were not judged: that needs pip install 'steer[judge]'; then give the command again")
    if as_json:
        run = {"run": outcome.folder, "cells": outcome.cells, "written": outcome.written, "measured": outcome.measured}
        say.json(run | {"files": outcome.files} | vars(outcome.results))
        return
    if say.lively:
        from agents.cli._console import console

        console(stderr=True).print(*rich_tables(outcome.results), sep="\n\n")
    if not (say.lively and sys.stdout.isatty()):  # on one terminal, one kind of table is enough
        say.result(markdown(outcome.results))
    say.note("in " + str(outcome.folder) + ": " + ", ".join(path.name for path in outcome.files))


def show_forecast(say: Output, found: Any, as_json: bool, *, unit: str) -> None:
    """Print what is left (an `agents.experiments.forecast.Forecast`), of so many units."""
    if as_json:
        say.json(found)
        return
    rows = [(a.name, a.texts, a.tokens, a.seconds, "its own cells" if a.measured else "a sample") for a in found.arms]
    rows.append(("all", sum(arm.texts for arm in found.arms), found.tokens, found.seconds, ""))
    shown = ((name, f"{texts:,}", f"{tokens:,}", clock(time), source) for name, texts, tokens, time, source in rows)
    say.table(shown, "arm", f"{unit} left", "tokens", "time", "from")
    say.result(
        f"{found.done} of {found.cells} cells are done. One process needs about {clock(found.seconds)} for the rest, "
        f"measuring aside, and about {found.memory / 2**30:.1f} GiB."
    )


@contextmanager
def board(say: Output, *, unit: str, success: str) -> Iterator[Any]:
    """Shows progress: a live table on a terminal, else a line per cell; see `progress_table`."""
    if not say.lively:

        def tell(tallies: Mapping[str, Any], cell: Any) -> None:
            if cell is not None:
                done, cells = (sum(getattr(t, name) for t in tallies.values()) for name in ("done", "cells"))
                say.note(f"{cell.label} ({done}/{cells})")

        yield tell
        return
    from rich.live import Live

    from agents.cli._console import console

    # Opened at the first news: before that the loading of the model has its own line there.
    live = Live(console=console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)

    def show(tallies: Mapping[str, Any], cell: Any) -> None:
        if not live.is_started:
            live.start()
        live.update(progress_table(tallies, unit=unit, success=success), refresh=True)

    try:
        yield show
    finally:
        live.stop()


def progress_table(tallies: Mapping[str, Any], *, unit: str, success: str) -> Any:
    """How far each arm is: a rich table.

    Args:
        tallies: `agents.experiments.kind.Tally` by name.
        unit, success: what they count, and what of it counts as a hit.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table("arm", "", "cells", unit, success, "tokens/s", "time left")
    for name, tally in tallies.items():
        hits = "-" if not tally.texts or tally.hits != tally.hits else f"{tally.hits / tally.texts:.0%}"
        speed = f"{tally.tokens / tally.seconds:,.0f}" if tally.seconds else "-"
        left = clock(tally.seconds / tally.done * (tally.cells - tally.done)) if tally.done else "-"
        bar = ProgressBar(total=tally.cells, completed=tally.done, width=20)
        table.add_row(name, bar, f"{tally.done}/{tally.cells}", str(tally.texts), hits, speed, left)
    return table


def clock(seconds: float) -> str:
    """A length of time for people: `41 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def advice(say: Output, file: Path, folder: Path) -> Iterator[None]:
    """Say how to go on when a run is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        say.note(f"stopped; whole cells are safe: steer experiment {file} --out {folder}")
        raise
