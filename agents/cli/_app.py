"""The command `steer`: its options, its commands, and the group that imports a command's module when it is asked for.

A command is a module of this package that is named as it is typed. Its function has the same name, or is `command`
where that is a name of Python's; `EXAMPLE` is shown below its help. A group of commands has a function `add_to(app)`
instead. `steer --help` imports none of them: `COMMANDS` holds the line that is shown of each, the first paragraph of
the command's own help (a test compares the two).
"""

import io
import logging
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from agents.cli._errors import GuardedGroup
from agents.cli._output import Output, show_logs

COMMANDS = {
    "demo": "Play the packaged scenario, guided and unguided side by side.",
    "run": "Play a scenario. Prints the folder of the run.",
    "resume": "Go on with a run that was stopped.",
    "audit": "Check that the model read only the opening and the story.",
    "schema": "Print the JSON Schema of scenario files, for editors.",
    "write": "Continue a text towards an ending that it never mentions.",
    "encode": "Encode texts to latents.",
    "apply": "Write one span from the context's last span, its latent moved.",
    "index": "Index documents by meaning, search them, and plan with them.",
    "trees": "Look at saved search trees, and export them.",
    "plot": "Draw a run, a search tree or an experiment.",
    "experiment": "Compare ways of writing on the same contexts and seeds.",
    "report": "Write a finished experiment as one page.",
    "train": "Train a model from a recipe, or a head for a model.",
    "models": "List models, get a base, and say where it is.",
    "eval": "Measure a model on stories that it has not seen.",
    "doctor": "Check versions, hardware, the packaged model and disk access.",
}


class LazyGroup(GuardedGroup):
    """Knows all commands by name and help; imports the module of one when that one is run or completed."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, help in COMMANDS.items():
            self.commands.setdefault(name, TyperCommand(name=name, help=help))

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # as in GuardedGroup
        """The command that `args` name, loaded, and what is left for it."""
        name, command, rest = super().resolve_command(ctx, args)  # type: ignore[arg-type]
        return name, load_command(name) if name in COMMANDS else command, rest


def load_command(name: str) -> Any:
    """Import the module of a command, and make the command."""
    holder, module = typer.Typer(), import_module(f"agents.cli.{name}")
    if hasattr(module, "add_to"):
        module.add_to(holder)
    else:
        function = getattr(module, name, None) or module.command
        holder.command(name, epilog=f"Example: {module.EXAMPLE}")(function)
    command = typer.main.get_group(holder).commands[name]
    for each in (command, *getattr(command, "commands", {}).values()):
        # typer keeps the line breaks of a docstring, which fit no terminal.
        each.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in (each.help or "").split("\n\n"))
    return command


app = typer.Typer(
    name="steer",
    cls=LazyGroup,
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
