"""`steer report`: a finished experiment as one page."""

from pathlib import Path
from typing import Annotated

import typer

from agents.cli._options import JsonOption
from agents.cli._output import output

EXAMPLE = "steer report runs/guidance"


def report(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished experiment.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the report; by default that of the run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a finished experiment as one page.

    That is report.html, with figures, tests and samples inside, and report.md. Prints the files.
    """
    say = output(ctx)
    from agents.experiments.report import write_report

    with say.status("writing the report"):
        files = write_report(run, out)
    say.files(files, as_json=as_json)
