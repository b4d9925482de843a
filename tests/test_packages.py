"""The contract of the three packages with the outside: what they import, what they export, that they are typed."""

import importlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "steer", "vectorstore")


UNWANTED = {
    "agents": set(),
    "steer": {"faiss", "matplotlib", "vectorstore", "agents"},
    "vectorstore": {"torch", "transformers", "peft", "steer", "agents"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_import_leaves_out_and_prints_nothing(package: str, tmp_path: Path) -> None:
    """What a fresh interpreter holds after importing a package and nothing else."""
    out = tmp_path / "modules"
    code = f"import sys, {package}; open(sys.argv[1], 'w').write(' '.join(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    loaded = set(out.read_text(encoding="utf-8").split())
    assert package in loaded
    assert (loaded & UNWANTED[package]) == set()


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
