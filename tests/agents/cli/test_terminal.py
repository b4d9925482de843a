"""What files say cannot act on the terminal that a command prints to."""

import ast
import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree
from typer.testing import CliRunner

import agents.cli
from agents.cli._console import console, shown
from agents.cli._errors import GuardedGroup, report
from agents.cli._output import Output, show_logs
from agents.errors import InputError

# Sets a title, writes the clipboard, clears the screen, turns text around; then markup and an emoji's name.
EVIL = "Ben\x1b]0;t\x07\x1b]52;c;aGk=\x1b\\\x9b2J\r\x08\u202e[red][link=http://x]z[/link] :fire:"
SAFE = "Ben\ufffd]0;t\ufffd\ufffd]52;c;aGk=\ufffd\\\ufffd2J\ufffd\ufffd\ufffd[red][link=http://x]z[/link] :fire:"
OBEYED = set("\x1b\x07\x08\r\x9b\u202e")


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Both streams of the process, as one terminal 200 columns wide without colours."""
    stream = Screen()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    for name, value in (("COLUMNS", "200"), ("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    return stream


def test_everything_that_is_said_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    say = Output()
    say.note(EVIL)
    say.result(EVIL)
    say.json({EVIL: [EVIL, Path("a\x1bb")]})
    say.table([(EVIL, (EVIL, "bold"), 3)], EVIL, "b", "c", title=EVIL)
    say.files([Path("a\x1bb")], as_json=False)
    with say.status(EVIL), say.progress(EVIL, 3) as bar:
        bar.show(EVIL, 1, 3)
    report(InputError(EVIL), EVIL, debug=True)
    show_logs(logging.WARNING)
    logging.getLogger("agents.test").warning(EVIL)
    seen = screen.getvalue()
    assert not OBEYED & set(seen)
    assert seen.count(SAFE) >= 6
    document = seen[seen.index("{") : seen.index("}") + 1]
    assert json.loads(document) == {EVIL: [EVIL, "a\x1bb"]}


def test_everything_that_is_drawn_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    table = Table(EVIL, title=EVIL, caption=EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL))
    tree = Tree(EVIL)
    tree.add(Text(EVIL))
    surface = console()
    for drawn in (EVIL, Text(EVIL), table, tree, Panel(shown(EVIL), title=shown(EVIL), subtitle=Text(EVIL))):
        surface.print(drawn)
    surface.rule(EVIL)
    with Live(table, console=console(stderr=True)):
        pass
    seen = screen.getvalue()
    assert not OBEYED & set(seen) and "🔥" not in seen
    assert seen.count(SAFE) >= 12


def test_colours_of_our_own_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    console().print(Text("x\x1b[2Jy", "red"))
    assert screen.getvalue() == "\x1b[31mx\ufffd[2Jy\x1b[0m\n"


def test_wrong_usage_is_told_clean() -> None:
    commands = typer.Typer(cls=GuardedGroup, pretty_exceptions_enable=False)

    @commands.callback()
    def options(ctx: typer.Context) -> None:
        ctx.obj = Output()

    @commands.command()
    def look(file: Path = typer.Argument(exists=True)) -> None:  # noqa: B008
        raise typer.BadParameter(f"--out {file}")

    for arguments in (["look", "no\x1b]0;t\x07"], ["look", "/", "\x1b[2J"], ["look", "--\x9b2J"], ["lo\x1b[2Jok"]):
        result = CliRunner().invoke(commands, arguments)
        assert result.exit_code == 2
        assert not OBEYED & set(result.stderr), repr(result.stderr)


def test_nothing_else_prints() -> None:
    """Every module of the command line speaks through `_output` and `_console`."""
    speakers: dict[str, set[Any]] = {}
    for path in Path(agents.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in ("print", "typer.echo", "typer.secho", "Console", "rich.print", "sys.stdout.write"):
                    speakers.setdefault(path.name, set()).add(name)
    assert speakers == {"_output.py": {"print"}, "_app.py": {"print"}}  # the version, of our own
