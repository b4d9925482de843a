"""What goes where: results on stdout, everything said to a person on stderr, progress only on a terminal.

Nothing else in the command line prints: what is said here is cleaned (`steer.displayed`), because names, texts and
paths come from files that may be a stranger's.
"""

import dataclasses
import itertools
import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import typer

from steer.displayed import printable, printable_json


@dataclasses.dataclass(frozen=True)
class Output:
    """The global options, and how a command speaks.

    Attributes:
        debug: show tracebacks, and what the libraries below have to say.
        quiet: say nothing but results and errors.
    """

    debug: bool = False
    quiet: bool = False

    @property
    def lively(self) -> bool:
        """Whether spinners and bars make sense: stderr is a terminal and nobody asked for silence."""
        return sys.stderr is not None and sys.stderr.isatty() and not self.quiet

    def note(self, message: str) -> None:
        """A remark to the person at the keyboard."""
        if not self.quiet:
            tell(message)

    def result(self, text: str) -> None:
        """A result, as text."""
        print(printable(text), flush=True)

    def json(self, value: Any) -> None:
        """A result, as one JSON document; see `plain`."""
        unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
        print(printable_json(json.dumps(plain(value), ensure_ascii=not unicode, indent=2)), flush=True)

    def table(self, rows: Iterable[Sequence[Any]], *head: str, **options: Any) -> None:
        """A result as a table.

        Args:
            rows: cells; a pair is a text and its style, everything else is shown as its text.
            *head: above the columns; without it and options, the columns stand side by side without lines.
            **options: of `rich.table.Table`.
        """
        from rich.table import Table

        from agents.cli._console import console, shown

        table = Table(**options) if head or options else Table.grid(padding=(0, 2))
        for name in head:
            table.add_column(shown(name))
        for row in rows:
            table.add_row(*(shown(*cell) if isinstance(cell, tuple) else shown(str(cell)) for cell in row))
        console().print(table)

    def files(self, paths: Iterable[Path], *, as_json: bool, name: str = "files") -> None:
        """The files that were made: a line each, or one JSON document with a list of this name."""
        if as_json:
            self.json({name: list(paths)})
            return
        for path in paths:
            self.result(str(path))

    @contextmanager
    def status(self, message: str) -> Iterator[None]:
        """A spinner on stderr while something runs whose length is unknown."""
        if not self.lively:
            yield
            return
        from agents.cli._console import console, shown

        with console(stderr=True).status(shown(message)):
            yield

    @contextmanager
    def progress(self, message: str, total: int | None = None) -> Iterator["Bar"]:
        """A bar on stderr, which counts from 0 to `total` where that is known; `Bar.show` moves it."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from agents.cli._console import console

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns,
            console=console(stderr=True),
            disable=not self.lively,
            transient=True,
            redirect_stdout=False,  # or rich would send results to stderr
            redirect_stderr=False,
        ) as progress:
            yield Bar(progress, progress.add_task(message, total=total))


Progress = Callable[[str, int, int | None], None]  # what is counted, how much is done, of how much (None: not known)


@final
class Bar:
    """A running progress bar."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def show(self, what: str, done: int, total: int | None) -> None:
        """Say what is counted, how much of it is done, and of how much; a `Progress`."""
        self._progress.update(self._task, description=what, completed=done, total=total)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar off the screen while something else is printed there."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


def tell(message: str) -> None:
    """Say something on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def output(ctx: typer.Context) -> Output:
    """The `Output` of this invocation."""
    return ctx.find_object(Output) or Output()


def plain(value: Any) -> Any:
    """A value as JSON has it: records become objects, arrays become lists, paths become strings, NaN becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    for method in ("model_dump", "tolist"):  # pydantic records; arrays, tensors and their scalars
        if hasattr(value, method):
            return plain(getattr(value, method)())
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """The first of `parent/name-1`, `parent/name-2`, ... that does not exist, made; taken away if it stays empty.

    Raises:
        OSError: the folder cannot be made.
    """
    for number in itertools.count(1):
        folder = parent / f"{name}-{number}"
        with suppress(FileExistsError):
            folder.mkdir(parents=True)  # claims the name before others that are started at once
            break
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()  # which only works on an empty one


def show_logs(level: int) -> None:
    """Show what our own packages log, from this level up, as lines on stderr. Calling it again changes the level."""
    for package in ("agents", "steer", "vectorstore"):
        logger = logging.getLogger(package)
        handler = next((found for found in logger.handlers if isinstance(found, _Remarks)), None)
        if handler is None:
            handler = _Remarks()
            logger.addHandler(handler)
        handler.setLevel(level)
        logger.setLevel(min(level, logging.WARNING))


class _Remarks(logging.Handler):
    """Writes to whatever stderr is at that moment: tests and notebooks exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(f"{record.levelname.lower()}: {record.getMessage()}")
