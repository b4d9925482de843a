"""From errors to exit codes: the one place that decides what a person sees of a failure.

| code | meaning |
|---|---|
| 0 | done |
| 1 | an error that was foreseen, told in one line on stderr (or a bug, told as such) |
| 2 | the command line itself is wrong |
| 3 | a check did not pass (`steer audit`) |
| 130 | Ctrl-C |
| 141 | the reader of our output went away, as any program in a pipe has it |
"""

import errno
import os
import sys
import traceback
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from agents.cli._output import output, tell
from steer.displayed import printable


class ExitCode(IntEnum):
    """What the process answers; the table above says when."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CHECK_FAILED = 3
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class GuardedGroup(TyperGroup):
    """The group of all commands. Turns what they raise into one line on stderr and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own Context is a subclass
        """Run the command; see the module for the exit codes."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # it is, where the shell closed it
                sys.stdout.flush()  # here, where a broken pipe can still be answered
            return result
        except (typer.Exit, typer.Abort):
            raise
        except typer.TyperException as error:
            error.message = printable(error.message)  # it may name a file
            raise
        except KeyboardInterrupt as stop:
            report(stop, "interrupted", debug=output(ctx).debug)
            raise typer.Exit(ExitCode.INTERRUPTED) from stop
        except BrokenPipeError as error:
            silence_broken_streams()
            raise typer.Exit(ExitCode.BROKEN_PIPE) from error
        except Exception as error:
            report(error, f"error: {explain(error)}", debug=output(ctx).debug)
            raise typer.Exit(ExitCode.FAILED) from error


def report(error: BaseException, line: str, *, debug: bool) -> None:
    """Say on stderr what happened; with `debug`, also where."""
    # A pipe may be closed, and its text invalid: neither must hide the exit code.
    try:
        tell("".join(traceback.format_exception(error)) + line if debug else line)
    except OSError:
        silence_broken_streams()


def explain(error: Exception) -> str:
    """The message for an error: its own where it was raised on purpose, else one that says what to do about it."""
    if is_foreseen(error):
        return str(error)
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return f"no space left on the disk{_at(error)}; free some, then give the command again"
        return f"{error.strerror or error}{_at(error)}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller --batch-size, a shorter context or a smaller model"
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"unexpected {type(error).__name__}: {first} (this is a bug; `steer --debug ...` shows where)"


def is_foreseen(error: Exception) -> bool:
    """Whether one of the packages raised it on purpose, with a message for the user."""
    from agents.errors import AgentsError
    from steer.errors import SteerError
    from vectorstore.errors import VectorStoreError

    return isinstance(error, AgentsError | SteerError | VectorStoreError)


def silence_broken_streams() -> None:
    """Point streams whose reader is gone to nowhere: Python would flush them again at exit, and complain."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, stream.fileno())
            except OSError:
                pass  # a stream without a file descriptor has nothing to flush at exit
            finally:
                os.close(nowhere)


def _at(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f": {' -> '.join(names)}" if names else ""
