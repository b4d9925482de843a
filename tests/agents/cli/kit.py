"""What the tests of the command line share: running it in this process, and a tiny model on disk."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agents.cli import app

ROOT = Path(__file__).resolve().parents[3]
SPAN, Z_DIM = 16, 6


def steer(*arguments: object, text: str | None = None) -> Result:
    """Run a command in this process; `text` is its standard input."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=text)


def steer_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "agents.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def document(result: Result) -> Any:
    """The one JSON document on stdout of a command that went well."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error_line(result: Result, code: int = 1) -> str:
    """The message of a command that failed as foreseen: nothing on stdout, no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def model_folder(base: Path, folder: Path) -> Path:
    """Save a tiny latent model with its base, so stirred that latents matter; spans of 16 bytes."""
    from steer.models import checkpoint
    from tests.steer.tiny import sharpen, tiny_model

    checkpoint.save(sharpen(tiny_model(base, span_tokens=SPAN, z_dim=Z_DIM, tied=False)), folder, with_base=True)
    return folder


def save(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def load(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_batch(source: Path, out: Path, model: Path, *more: object) -> Result:
    """Run `steer write --batch`, two spans a row, two rows at a time."""
    return steer("write", "--batch", source, "--out", out, "-m", model, "-n", 2, "--batch-size", 2, *more)


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """Put a module of that name in the place of the real one, if there is one."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def record(**fields: Any) -> SimpleNamespace:
    """A record with these fields, such as an event."""
    return SimpleNamespace(**fields)
