"""The map of the code is true: every module is named, every named file exists, unusual sizes have a reason."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
SHORTEST, LONGEST = 40, 350  # lines of a module


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that writes the lists of modules."""
    spec = importlib.util.spec_from_file_location("docs_modules", ROOT / "docs" / "_modules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def part(page: str, heading: str) -> str:
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_lists_are_those_of_the_modules(page: str, maker: ModuleType) -> None:
    assert page == maker.renewed(page), "the modules have changed: run `python docs/_modules.py`"


def test_ideas_lead_to_files(page: str) -> None:
    files = re.findall(r"\| `([^`]+)` \|$", part(page, "Where does it live?"), re.MULTILINE)
    assert len(files) >= 30
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_sizes_out_of_the_ordinary_have_a_reason(page: str, maker: ModuleType) -> None:
    paths = [path for package in maker.PACKAGES for folder in maker.chapters(package) for path in maker.modules(folder)]
    lines = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n") for path in paths}
    unusual = {name for name, count in lines.items() if not SHORTEST <= count <= LONGEST}
    reasons = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", part(page, "Sizes"), re.MULTILINE))
    assert set(reasons) == unusual
