"""The file of an experiment over scenarios: `scenarios` in place of `pairs`, and arms that change the planner.

```yaml
id: characters
scenarios: [../scenarios, demo]
seeds: [0, 1]
arms:
  - {name: unguided, planner: {method: unguided}}
  - {name: first stronger, planner: {method: annealed}, strengths: {second: 0.3}, relations: [against]}
```

A scenario's relation is the part of its id before the first hyphen (`against-cake`); it says nothing to the planner.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
from pydantic import Field
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from agents.experiments.kind import ROLES
from agents.experiments.spec import Experiment, Name, slug
from agents.scenarios.loading import load_scenario, packaged_scenarios
from agents.scenarios.planner_settings import SEARCH_KEYS, SEARCHES, Planner, Share
from agents.scenarios.schema import Scenario
from steer.noise import derive_seed
from steer.records import KeysOf, StrictRecord


class ScenarioArm(StrictRecord):
    """One way of planning.

    Attributes:
        name: in tables.
        planner: keys that replace those of a scenario's `planner`; a path in it starts from the experiment's file.
        strengths: factors on the weights of a character's goals, by its id, or by its place: `first`, `second`, ...
        relations: run the scenarios of these relations alone; by default all.
    """

    name: Name
    planner: Annotated[dict[str, Any], KeysOf(Planner)] = {}
    strengths: dict[str, Share] = {}
    relations: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return slug(self.name)

    def runs(self, scenario: Scenario) -> bool:
        """Whether the arm is run in a scenario."""
        return not self.relations or relation_of(scenario) in self.relations


class ScenarioExperiment(Experiment):
    """An experiment over scenarios, whose own seeds and models do not count.

    Attributes:
        scenarios: names of packaged ones, files, or folders of files; paths start from the experiment's file.
        arms: what is compared.
    """

    not_settings: ClassVar[frozenset[str]] = Experiment.not_settings | {"scenarios"}

    scenarios: tuple[str, ...] = Field(min_length=1)
    arms: tuple[ScenarioArm, ...] = Field(min_length=1)

    def arm_names(self) -> list[tuple[int, str]]:
        """Names of the arms, each with its index."""
        return [(index, arm.name) for index, arm in enumerate(self.arms)]


def relation_of(scenario: Scenario) -> str:
    """How the goals of a scenario stand to each other, as its id says: the part before the first hyphen, else `any`."""
    relation, hyphen, _ = scenario.id.partition("-")
    return relation if hyphen else "any"


def scenario_of(experiment: ScenarioExperiment, arm: ScenarioArm, scenario: Scenario, seed: int) -> Scenario:
    """A scenario as an arm runs it: with its planner, strengths and model, and noise that all arms share.

    Raises:
        ValidationError: the changed planner makes no sense.
    """
    data = scenario.model_dump(mode="json")
    planner = data["planner"] | arm.planner
    if planner.get("method") not in SEARCHES:  # what only belonged to the scenario's search goes with it
        planner = {key: value for key, value in planner.items() if key in arm.planner or key not in SEARCH_KEYS}
    for role, character in zip(ROLES, data["characters"], strict=False):
        factor = arm.strengths.get(character["id"], arm.strengths.get(role, 1.0))
        for goal in character["goals"]:
            goal["weight"] *= factor
    seed = derive_seed(seed, "scenario", scenario.id)
    return Scenario.model_validate(data | {"planner": planner, "seed": seed, "model": experiment.model})


def with_absolute_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The data of a file, with the paths of scenarios and indexes made absolute from `folder`."""
    packaged = packaged_scenarios()
    if isinstance(entries := data.get("scenarios"), list):
        data["scenarios"] = [
            str(folder / entry) if isinstance(entry, str) and entry not in packaged else entry for entry in entries
        ]
    arms = data.get("arms")
    for arm in arms if isinstance(arms, list) else ():
        roadmap = arm["planner"].get("roadmap") if isinstance(arm, dict) and isinstance(arm.get("planner"), dict) else 0
        if isinstance(roadmap, dict) and isinstance(roadmap.get("store"), str):
            roadmap["store"] = str(folder / roadmap["store"])
    return data


def load_scenarios(experiment: ScenarioExperiment) -> tuple[Scenario, ...]:
    """The scenarios of an experiment, in order; their ids are unique.

    Raises:
        ValidationError: an entry names none, or one that cannot be compared.
        ScenarioError: a scenario does not fit its schema.
        TextError: a file is unreadable, or not UTF-8.
    """
    packaged, scenarios = packaged_scenarios(), []
    for index, entry in enumerate(experiment.scenarios):
        place, paths = ("scenarios", index), [packaged[entry]] if entry in packaged else [Path(entry)]
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
                message = f"nobody in {scenario.id} has a goal of kind terminal, so there is nothing to measure"
                raise _error(place, message, entry)
            scenarios.append(scenario)
    return tuple(scenarios)


def check_experiment(experiment: ScenarioExperiment, scenarios: tuple[Scenario, ...]) -> None:
    """Refuse arms that fit none of the scenarios, or make no sense in one of them.

    Raises:
        ValidationError: there is one; the place is the one in the experiment's file.
    """
    relations = sorted({relation_of(scenario) for scenario in scenarios})
    for index, arm in enumerate(experiment.arms):
        for number, relation in enumerate(arm.relations):
            if relation not in relations:
                known = f"no scenario has it; expected {', '.join(relations)}"
                raise _error(("arms", index, "relations", number), known, relation)
        own = [scenario for scenario in scenarios if arm.runs(scenario)]
        names = {character.id for scenario in own for character in scenario.characters}
        names |= set(ROLES[: max(len(scenario.characters) for scenario in own)])
        for name, factor in arm.strengths.items():
            if name not in names:
                known = f"no such character; expected an id, or one of {', '.join(ROLES[:4])}"
                raise _error(("arms", index, "strengths", name), known, factor)
        for scenario in own:
            try:
                scenario_of(experiment, arm, scenario, 0)
            except pydantic.ValidationError as error:
                moved = [_moved(item, index) for item in error.errors()]
                raise ValidationError.from_exception_data("ScenarioArm", moved) from error


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
    details = [InitErrorDetails(type=kind, loc=loc, input=given)]
    return ValidationError.from_exception_data("ScenarioExperiment", details)
