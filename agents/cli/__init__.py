"""The command line `steer`: thin commands over the three packages.

Everything heavy (torch, transformers, faiss) is imported inside the commands, so that `steer --help` answers at once.
"""

import io
import logging
import sys
from typing import Annotated

import typer

from agents.cli.guard import GuardedGroup
from agents.cli.output import Output, show_logs

__all__ = ["app", "main"]

app = typer.Typer(
    name="steer",
    cls=GuardedGroup,
    help="Steer base language models towards hidden goals through latents, never through the prompt.",
    epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 3 a check failed, 130 interrupted, 141 output closed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `steer` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Models write any character; a terminal that lacks one is no reason to lose the text.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="steer")


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"steer {version('steer')}")
    except PackageNotFoundError:
        print("steer (run from its source tree, not installed)")
    raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the libraries' warnings.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options that stand before the command's name."""
    ctx.obj = Output(debug=debug, quiet=quiet)
    show_logs(logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING)


def _add_commands() -> None:
    from agents.cli import (
        check,
        doctor,
        evaluating,
        experiment,
        index,
        latents,
        plot,
        report,
        search,
        simulate,
        training,
        writing,
    )

    runs = (simulate, writing, experiment, report, search, plot)
    for module in (*runs, index, latents, training, evaluating, check, doctor):
        module.add_to(app)


_add_commands()
