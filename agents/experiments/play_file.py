"""The file of an experiment over scenarios: read strictly, with errors that name the line and the key."""

from pathlib import Path
from typing import Any

import pydantic
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from agents.errors import ExperimentError
from agents.experiments.play_spec import ROLES, PlayArm, PlayExperiment, Plays, as_played, relation_of
from agents.scenarios.loading import load_scenario, packaged_scenarios
from agents.scenarios.schema import Scenario
from steer.yaml_file import YamlFile, read_yaml


def holds_scenarios(path: str | Path) -> bool:
    """Whether the file of an experiment is one over scenarios, by its keys.

    Raises:
        ExperimentError: it is no YAML.
        TextError: it is missing, unreadable, or not UTF-8.
    """
    return "scenarios" in _read(path).data


def load_plays(path: str | Path) -> Plays:
    """Read and check the file of an experiment over scenarios, and the scenarios.

    Raises:
        ExperimentError: it is no YAML, or does not fit the schema; one line `file:line: key: what is wrong` per error.
        ScenarioError: the same of a scenario.
        TextError: a file is missing, unreadable, or not UTF-8.
    """
    file = _read(path)
    folder = Path(path).resolve().parent
    with file.checked(PlayExperiment):
        experiment = PlayExperiment.model_validate(file.data)
        scenarios, entries = _load_scenarios(experiment, folder)
        arms = tuple(_placed(arm, folder) for arm in experiment.arms)
        plays = Plays(experiment.model_copy(update={"scenarios": entries, "arms": arms}), scenarios)
        for index, arm in enumerate(arms):
            _check_arm(plays, index, arm)
    return plays


def _read(path: str | Path) -> YamlFile:
    return read_yaml(path, "experiment", expected="id, arms, and pairs or scenarios", error=ExperimentError)


def _load_scenarios(experiment: PlayExperiment, folder: Path) -> tuple[tuple[Scenario, ...], tuple[str, ...]]:
    """The scenarios, and the entries of the file with their paths made absolute."""
    packaged, scenarios, entries = packaged_scenarios(), [], []
    for index, entry in enumerate(experiment.scenarios):
        place, paths = ("scenarios", index), [packaged[entry]] if entry in packaged else [folder / entry]
        if paths[0].is_dir():
            paths = sorted(paths[0].glob("*.yaml"))
        if not paths or not paths[0].is_file():
            what = f"expected a file, a folder with *.yaml in it, or one of {', '.join(packaged)}"
            raise _error(place, f"there is no such scenario; {what}", entry)
        for path in paths:
            scenario = load_scenario(path)
            if scenario.id in (other.id for other in scenarios):
                raise _error(place, f"a second scenario with the id {scenario.id!r}; each needs its own", entry)
            if any(character.wishes for character in scenario.characters):
                raise _error(place, f"{scenario.id} has wishes, whose goals are not known before; write goals", entry)
            if not any(goal.kind == "terminal" for _, goal in scenario.goals()):
                raise _error(
                    place, f"nobody in {scenario.id} has a goal of kind terminal, so there is nothing to measure", entry
                )
            scenarios.append(scenario)
        entries.append(entry if entry in packaged else str(folder / entry))
    return tuple(scenarios), tuple(entries)


def _placed(arm: PlayArm, folder: Path) -> PlayArm:
    """The arm with the path of its index made absolute."""
    roadmap = arm.planner.get("roadmap")
    if not isinstance(roadmap, dict) or not isinstance(roadmap.get("store"), str):
        return arm
    store = str(folder / roadmap["store"])
    return arm.model_copy(update={"planner": arm.planner | {"roadmap": roadmap | {"store": store}}})


def _check_arm(plays: Plays, index: int, arm: PlayArm) -> None:
    """Refuse what fits none of the scenarios, or makes no sense in one of them."""
    relations = sorted({relation_of(scenario) for scenario in plays.scenarios})
    for number, relation in enumerate(arm.relations):
        if relation not in relations:
            known = f"no scenario has it; expected {', '.join(relations)}"
            raise _error(("arms", index, "relations", number), known, relation)
    scenarios = [scenario for scenario in plays.scenarios if arm.plays(scenario)]
    names = {character.id for scenario in scenarios for character in scenario.characters}
    names |= set(ROLES[: max(len(scenario.characters) for scenario in scenarios)])
    for name, factor in arm.strengths.items():
        if name not in names:
            known = f"no such character; expected an id, or one of {', '.join(ROLES[:4])}"
            raise _error(("arms", index, "strengths", name), known, factor)
    for scenario in scenarios:
        try:
            as_played(plays, arm, scenario, 0)
        except pydantic.ValidationError as error:
            raise ValidationError.from_exception_data(
                "PlayArm", [_moved(item, index) for item in error.errors()]
            ) from error


def _moved(item: Any, index: int) -> InitErrorDetails:
    """An error of a changed scenario, where it stands in the experiment's file."""
    place = (item.get("ctx") or {}).get("place")
    loc = ("arms", index, *item["loc"], *(place.split(".") if place else ()))
    kind: Any = item["type"]
    if kind not in ("extra_forbidden", "missing"):
        kind = PydanticCustomError("experiment", "{message}", {"message": item["msg"].removeprefix("Value error, ")})
    return InitErrorDetails(type=kind, loc=loc, input=item["input"])


def _error(loc: tuple[str | int, ...], message: str, given: Any) -> ValidationError:
    kind = PydanticCustomError("experiment", "{message}", {"message": message})
    return ValidationError.from_exception_data("PlayExperiment", [InitErrorDetails(type=kind, loc=loc, input=given)])
