"""The contract of the three packages with the outside: what they import, what they export, that they are typed."""

import importlib
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "steer", "vectorstore")


def modules_after_import(package: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after importing `package` and nothing else."""
    code = f"import json, sys, {package}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        pytest.param("vectorstore", {"torch", "transformers", "peft", "steer", "agents"}, id="vectorstore"),
        pytest.param("steer", {"faiss", "matplotlib", "vectorstore", "agents"}, id="steer"),
    ],
)
def test_import_leaves_out(package: str, unwanted: set[str]) -> None:
    loaded = modules_after_import(package)
    assert package in loaded
    assert (loaded & unwanted) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_import_prints_nothing(package: str) -> None:
    command = [sys.executable, "-c", f"import {package}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_all_lists_the_public_names(package: str) -> None:
    """`__all__` is exactly what a user sees, submodules aside; ruff's RUF022 keeps it in sorted order."""
    module = importlib.import_module(package)
    exported = list(module.__all__)
    missing = [name for name in exported if not hasattr(module, name)]
    assert not missing, f"{package}.__all__ names what {package} does not have"
    public = {name for name in dir(module) if not name.startswith("_")}
    public -= {name for name in public if isinstance(getattr(module, name), ModuleType)}
    assert sorted(name for name in exported if not name.startswith("_")) == sorted(public)
