"""The command line as a whole: exit codes, what goes to which stream, and how fast it answers."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from agents.cli._app import COMMANDS, load_command
from agents.cli._errors import GuardedGroup
from agents.cli._options import Long
from agents.cli._output import Output, new_folder, plain
from agents.cli._write_options import Schedule
from agents.errors import AgentsError, InputError, RunExists
from steer.errors import ModelNotFound, TextError
from steer.latents.schedules import SCHEDULES
from tests.agents.cli.kit import ROOT, error_line, steer, steer_process
from vectorstore.errors import RecordNotFound

GROUPS = ("index", "models", "train", "trees")  # of commands, which have examples of their own


def failing(error: BaseException | None, *arguments: str) -> Any:
    """A command line whose only command raises this error."""
    commands = typer.Typer(cls=GuardedGroup, pretty_exceptions_enable=False)

    @commands.callback()
    def options(ctx: typer.Context, debug: bool = False) -> None:
        ctx.obj = Output(debug=debug)

    @commands.command()
    def fail() -> None:
        if error is not None:
            raise error

    return CliRunner().invoke(commands, [*arguments, "fail"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TextError("context is empty; give a word"), "error: context is empty; give a word"),
        (ModelNotFound("no model folder at 'x'"), "error: no model folder at 'x'"),
        (RecordNotFound("no record 'r1'"), "error: no record 'r1'"),
        (RunExists("runs/a is not empty"), "error: runs/a is not empty"),
        (AgentsError("two\nlines [of, z]"), "error: two\nlines [of, z]"),
        (InputError("line 3: no id"), "error: line 3: no id"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"),
            "error: No such file or directory: a.txt",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a", None, "b"), "error: Permission denied: a -> b"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: no space left on the disk"),
        (MemoryError(), "error: out of memory"),
        (ZeroDivisionError("division by zero"), "error: unexpected ZeroDivisionError: division by zero (this is a bug"),
    ],
)
def test_an_error_is_told_in_one_message(error: Exception, message: str) -> None:
    result = failing(error)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr


def test_debug_adds_the_traceback_and_keeps_the_message() -> None:
    result = failing(TextError("context is empty"), "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "raise error" in result.stderr
    assert result.stderr.endswith("error: context is empty\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 0), (KeyboardInterrupt(), 130), (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141), (typer.Exit(3), 3)],
)
def test_exit_codes(error: BaseException | None, code: int) -> None:
    result = failing(error)
    assert result.exit_code == code
    assert result.stderr == ("interrupted\n" if code == 130 else "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wriet"], "Did you mean 'write'"),
        (["write", "--spans", "0"], "--spans"),
        (["write", "--method", "bold"], "--method"),
        (["write", "--context", "A"], "needs --terminal"),
        (["write", "--terminal", "A"], "exactly one of --context"),
        (["write", "-c", "A", "-t", "B", "--method", "fixed", "--schedule", "bridge"], "--schedule belongs to"),
        (["write", "-c", "A", "--method", "unguided", "--weight", "0.5"], "--weight says"),
        (["write", "-c", "A", "-t", "B", "--out", "x"], "belong to --batch"),
        (["write", "--batch", "x.jsonl"], "needs --out"),
        (["write", "--batch", "x.jsonl", "--out", "y", "-c", "A"], "brings its own"),
        (["apply", "-c", "A"], "either --op"),
        (["apply", "-c", "A", "--from", "B"], "go together"),
        (["apply", "-c", "A", "--from", "B", "--to", "C", "--op", "D"], "either --op"),
        (["encode"], "at least one TEXT"),
        (["run"], "SCENARIO"),
        (["train", "router", "r.yaml", "--data-root", "d", "--out", "o"], "router"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], message: str) -> None:
    result = steer(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    # rich breaks lines inside a frame
    assert message in re.sub(r"[\s│]+", " ", result.stderr)


def test_every_command_is_a_module() -> None:
    """And every module is a command, unless its name begins with an underscore."""
    modules = {path.stem for path in (ROOT / "agents" / "cli").glob("[a-z]*.py")}
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_shows_their_own_help(name: str) -> None:
    paragraph = " ".join(load_command(name).help.split("\n\n")[0].split())
    assert paragraph == COMMANDS[name]
    assert len(paragraph) <= 80 - len("│ experiment  ") - len(" │")  # a line in a terminal of 80 columns


def test_help_lists_all_commands_in_order() -> None:
    shown = steer("--help").stdout
    lines = [line.strip("│ ").split(maxsplit=1) for line in shown[shown.index(" Commands ") :].splitlines()[1:]]
    assert [(line[0], line[1].strip()) for line in lines[: len(COMMANDS)]] == list(COMMANDS.items())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in GROUPS])
def test_every_command_has_an_example_that_parses(name: str) -> None:
    """The example is parsed by the command itself, so that it cannot name an option that is gone."""
    command = load_command(name)
    example = command.epilog.removeprefix("Example: ").split(" > ")[0]
    words = shlex.split(example)
    assert words[:2] == ["steer", name]
    command.make_context(name, words[2:], resilient_parsing=False)
    assert "Example" in steer(name, "--help").stdout


def test_help_imports_no_command() -> None:
    """Nor does an unknown command; one that is run imports its own module alone."""
    code = (
        "import sys; from typer.testing import CliRunner; from agents.cli import app; "
        "code = CliRunner().invoke(app, sys.argv[1:]).exit_code; "
        "commands = [name for name in sys.modules if name.startswith('agents.cli.') and '._' not in name]; "
        "print(code, commands, [name for name in ('torch', 'transformers', 'faiss', 'numpy') if name in sys.modules])"
    )

    def imported(*arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout

    assert imported("--help") == "0 [] []\n"
    assert imported("wriet") == "2 [] []\n"
    assert imported("trees", "--help") == "0 ['agents.cli.trees'] []\n"


def test_version_and_no_arguments() -> None:
    assert steer("--version").stdout.startswith("steer ")
    assert "Commands" in steer().output


def test_options_named_here_are_those_of_the_library() -> None:
    assert list(get_args(Schedule)) == list(SCHEDULES)
    assert list(get_args(Long)) == ["error", "mean", "truncate"]


def saying(call: str) -> list[str]:
    """The command line with a command that does nothing but print, so that nothing heavy is imported."""
    code = (
        "from agents.cli import app, main\nfrom agents.cli._output import Output\n"
        f"@app.command()\ndef say():\n    Output().{call}\nmain()"
    )
    return [sys.executable, "-c", code, "say"]


def test_a_closed_pipe_is_no_traceback() -> None:
    command = saying("json(list(range(50_000)))")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [(">&-", 0, ""), ("> /dev/full", 1, "error: no space left on the disk; free some, then give the command again\n")],
)
def test_output_that_goes_nowhere(redirection: str, code: int, message: str) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f"{shlex.join(saying('json(list(range(50_000)))'))} {redirection}"
    run = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (code, message)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_narrow_encoding_loses_no_result(as_json: bool) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = saying(f"{'json' if as_json else 'result'}('f\u00fcchsin')")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == ('"f\\u00fcchsin"\n' if as_json else "f\\xfcchsin\n")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_with_130() -> None:
    code = (
        # A parent that runs in the background may have left the signal ignored.
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from agents.cli import app, main\n"
        "@app.command()\ndef wait():\n    print('ready', flush=True)\n    time.sleep(60)\nmain()"
    )
    command = [sys.executable, "-c", code, "wait"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted\n"
    assert process.returncode == 130


def test_the_process_answers_with_the_same_codes(tmp_path: Path) -> None:
    """Shown by what needs no torch, whose import takes seconds."""
    unknown = steer_process("index", "stats", "--store", tmp_path / "none")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("error: no store at ")
    assert unknown.stderr.count("\n") == 1
    assert steer_process("write", "--spans", "none").returncode == 2


def test_quiet_silences_notes_but_no_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        Output(quiet=quiet).note("loading")
    assert capsys.readouterr().err == "loading\n"
    assert "no model folder" in error_line(steer("--quiet", "encode", "A", "--model", tmp_path / "none"))


@dataclass(frozen=True)
class Figures:
    share: float
    path: Path
    rows: tuple[int, ...]


def test_plain_values_are_json() -> None:
    import numpy as np

    figures = Figures(share=float("nan"), path=Path("a/b"), rows=(1, 2))
    value = {"figures": figures, 3: np.float32(0.5), "vectors": np.ones((1, 2), np.float32), "ok": True, "none": None}
    wanted = {"figures": {"share": None, "path": "a/b", "rows": [1, 2]}, "3": 0.5, "vectors": [[1.0, 1.0]]}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {**wanted, "ok": True, "none": None}
    with pytest.raises(TypeError, match="cannot write a object"):
        plain(object())


def test_new_folders_count_on_and_are_claimed_at_once(tmp_path: Path) -> None:
    (tmp_path / "demo-3").mkdir()
    with new_folder(tmp_path, "demo") as first, new_folder(tmp_path, "demo") as second:
        assert [first.name, second.name] == ["demo-1", "demo-2"] and first.is_dir() and second.is_dir()
        with new_folder(tmp_path, "demo") as third:
            assert third.name == "demo-4"
        (second / "kept").touch()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["demo-2", "demo-3"]  # empty ones go again


def test_where_no_folder_can_be_made_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(OSError, match="runs"), new_folder(tmp_path / "runs", "demo"):
        pass
