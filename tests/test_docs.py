"""The documentation is true: its Python runs, its tables name every field and default, its links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from agents.scenarios.planner_settings import MenuItem, Planner
from agents.scenarios.schema import Character, Goal, Sampling, Scenario
from steer.training.recipe import (
    BaseRecipe,
    DataRecipe,
    LatentRecipe,
    MiniHFRecipe,
    PackageRecipe,
    PriorRecipe,
    ReachRecipe,
    Recipe,
    SourceRecipe,
    StateEncoderRecipe,
    TrainRecipe,
    load_recipe,
)

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if path.is_file())
RUN = [page for page in PAGES if page.name in ("README.md", "python.md", "search.md", "extending.md")]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Fenced blocks of a language, each with the line (from 1) on which it starts."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)) + 1, match.group(1)


def compiled(page: Path) -> list[Any]:
    """The page's Python, its lines numbered as on the page."""
    return [compile("\n" * (line - 1) + code, str(page), "exec") for line, code in blocks(page, "python")]


def name_of(page: Path) -> str:
    return page.name


def test_the_pages_are_there() -> None:
    assert {"index.md", "concepts.md", "scenarios.md", "training.md", "python.md", "extending.md"} <= {
        page.name for page in PAGES
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles(page: Path) -> None:
    compiled(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page in order, as a reader would type them, with the packaged model."""
    from tests.steer.minihf_oracle import make_minihf_folder

    make_minihf_folder(tmp_path, seed=0)  # `base` and `checkpoint`, which the page on Python names
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for code in compiled(page):
        exec(code, namespace)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def table_rows(page: Path, heading: str) -> dict[str, str]:
    """Field and default of each row `| `field` | type | default | meaning |` below a heading."""
    text = page.read_text(encoding="utf-8")
    part = re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", part, re.MULTILINE)
    return {name: default.strip() for name, default in rows}


@pytest.mark.parametrize(
    ("page", "heading", "model"),
    [
        pytest.param("scenarios.md", "The scenario", Scenario, id="scenario"),
        pytest.param("scenarios.md", "`characters`", Character, id="characters"),
        pytest.param("scenarios.md", "`goals`", Goal, id="goals"),
        pytest.param("scenarios.md", "`planner`", Planner, id="planner"),
        pytest.param("scenarios.md", "`planner.menu`", MenuItem, id="menu"),
        pytest.param("scenarios.md", "`sampling`", Sampling, id="sampling"),
        pytest.param("training.md", "The recipe", Recipe, id="recipe"),
        pytest.param("training.md", "`data`", DataRecipe, id="data"),
        pytest.param("training.md", "`data.sources`", SourceRecipe, id="sources"),
        pytest.param("training.md", "`base`", BaseRecipe, id="base"),
        pytest.param("training.md", "`autoencoder`", LatentRecipe, id="autoencoder"),
        pytest.param("training.md", "`autoencoder.state_encoder`", StateEncoderRecipe, id="state_encoder"),
        pytest.param("training.md", "`autoencoder` of layout `minihf`", MiniHFRecipe, id="minihf"),
        pytest.param("training.md", "`reach`", ReachRecipe, id="reach"),
        pytest.param("training.md", "`prior`", PriorRecipe, id="prior"),
        pytest.param("training.md", "`train`", TrainRecipe, id="train"),
        pytest.param("training.md", "`package`", PackageRecipe, id="package"),
    ],
)
def test_tables_hold_every_field_and_default(page: str, heading: str, model: type[pydantic.BaseModel]) -> None:
    rows = table_rows(ROOT / "docs" / page, heading)
    assert list(rows) == list(model.model_fields)
    for name, field in model.model_fields.items():
        if field.is_required():
            assert rows[name] == "required", name
        elif isinstance(field.default, pydantic.BaseModel):
            assert rows[name] == "all defaults", name
        else:
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            assert yaml.safe_load(rows[name].strip("`")) == default, name


def test_yaml_on_the_pages_is_accepted(tmp_path: Path) -> None:
    from agents.scenarios.loading import load_scenario

    found = 0
    for page, load in (("scenarios.md", load_scenario), ("training.md", load_recipe)):
        for _, text in blocks(ROOT / "docs" / page, "yaml"):
            file = tmp_path / "file.yaml"
            file.write_text(text, encoding="utf-8")
            load(file)
            found += 1
    assert found >= 2
