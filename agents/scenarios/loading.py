"""Scenario files: read, found by name, and the paths in them."""

from pathlib import Path
from typing import Any

from agents.arguments import expect_path
from agents.errors import ScenarioError, ScenarioNotFound
from agents.scenarios.schema import Scenario
from steer.errors import TextError
from steer.yaml_file import read_yaml


def load_scenario(path: str | Path) -> Scenario:
    """Read and check a scenario file (YAML, or JSON, which is YAML), or a packaged scenario.

    Args:
        path: of the file; or the name of a packaged scenario, see `packaged_scenarios`.

    Raises:
        ScenarioError: it is unreadable, no YAML, or does not fit the schema; one line
            `file:line: key: what is wrong` per error. `ScenarioNotFound`: there is no such file and no such name.
        ArgumentError: `path` is no path.
    """
    path = find_scenario(path)
    try:
        file = read_yaml(path, "scenario", expected="id, opening, turns and characters", error=ScenarioError)
    except TextError as error:
        raise ScenarioError(str(error)) from error
    with file.checked(Scenario):
        return _placed(Scenario.model_validate(file.data), path.absolute().parent)


def find_scenario(name: str | Path) -> Path:
    """The file of a scenario: `name` itself, or that of the packaged scenario of that name.

    Raises:
        ScenarioNotFound: there is neither.
        ArgumentError: `name` is no path.
    """
    path, packaged = expect_path(name, "the path of a scenario"), packaged_scenarios()
    if not path.is_file() and str(name) in packaged:
        return packaged[str(name)]
    if path.exists():
        return path
    raise ScenarioNotFound(f"no scenario file at {str(name)!r}; packaged scenarios: {', '.join(packaged)}")


def _placed(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with its paths made absolute, from the folder of its file."""
    wishes = [
        tuple(
            wish if wish.among is None else wish.model_copy(update={"among": str(folder / wish.among)})
            for wish in character.wishes
        )
        for character in scenario.characters
    ]
    characters = tuple(
        character.model_copy(update={"wishes": found})
        for character, found in zip(scenario.characters, wishes, strict=True)
    )
    planner, model = scenario.planner, scenario.model
    if planner.roadmap is not None:
        roadmap = planner.roadmap.model_copy(update={"store": str(folder / planner.roadmap.store)})
        planner = planner.model_copy(update={"roadmap": roadmap})
    # `owner/name` may be a folder, or a model on the hub.
    if model.startswith(".") or (folder / model).is_dir():
        model = str(folder / model)
    return scenario.model_copy(update={"characters": characters, "planner": planner, "model": model})


def scenario_schema() -> dict[str, Any]:
    """JSON Schema of scenario files, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}


def packaged_scenarios() -> dict[str, Path]:
    """The scenarios that come with the package, by file name without ending."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
