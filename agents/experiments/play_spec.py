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

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import yaml
from pydantic import Field
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from agents.errors import ExperimentError, ScenarioError
from agents.experiments.spec import Name, Seed, at, slug
from agents.planner_part import SEARCH_KEYS, SEARCHES, Part, Planner, Share
from agents.scenario import DEFAULT_MODEL, Identifier, Scenario, load_scenario, packaged_scenarios
from agents.yaml_file import describe_errors, read_yaml
from steer.sampling import derive_seed
from steer.text import read_text

ROLES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class PlayArm(Part):
    """One way of playing.

    Attributes:
        name: in tables.
        planner: keys that replace those of a scenario's `planner`.
        strengths: factors on the weights of a character's goals, by its id, or by its place: `first`, `second`, ...
        relations: play the scenarios of these relations alone; by default all.
    """

    name: Name
    planner: dict[str, Any] = {}
    strengths: dict[str, Share] = {}
    relations: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return slug(self.name)

    def plays(self, scenario: Scenario) -> bool:
        """Whether the arm is played in a scenario."""
        return not self.relations or relation_of(scenario) in self.relations


class PlayExperiment(Part):
    """A whole experiment over scenarios.

    Attributes:
        id, title: for people and file names.
        model: hub id, folder, or name of the packaged model; the scenarios' own do not count.
        scenarios: names of packaged ones, files, or folders of files; paths start from the experiment's file.
        seeds: each scenario is played once with each; all arms share them. The scenarios' own do not count.
        reference: name of the arm that the others are tested against; by default the first.
        arms: what is compared.
    """

    schema_version: Literal[1] = 1
    id: Identifier
    title: str = ""
    model: str = DEFAULT_MODEL
    scenarios: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    reference: str | None = None
    arms: tuple[PlayArm, ...] = Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _check_whole(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise at("seeds", f"a seed stands twice in {list(self.seeds)}")
        seen: dict[str, str] = {}
        for index, arm in enumerate(self.arms):
            if arm.slug in seen:
                raise at(f"arms.{index}.name", f"{arm.name!r} and {seen[arm.slug]!r} would share files")
            seen[arm.slug] = arm.name
        if self.reference is not None and self.reference not in seen.values():
            raise at("reference", f"no such arm; expected one of {', '.join(seen.values())}")
        return self


@dataclass(frozen=True)
class Plays:
    """An experiment with its scenarios.

    Attributes:
        experiment: the file.
        scenarios: what is played, in order; their ids are unique.
    """

    experiment: PlayExperiment
    scenarios: tuple[Scenario, ...]

    @property
    def id(self) -> str:
        """The experiment's."""
        return self.experiment.id

    @property
    def reference(self) -> str:
        """Name of the arm that the others are tested against."""
        return self.experiment.reference or self.experiment.arms[0].name

    def settings(self) -> dict[str, Any]:
        """All that decides what is written, the scenarios by their hashes; plain JSON."""
        own = self.experiment.model_dump(mode="json", exclude={"title", "scenarios", "reference"})
        return own | {"scenarios": {scenario.id: scenario.sha256() for scenario in self.scenarios}}

    def to_yaml(self) -> str:
        """The experiment's file, paths made absolute."""
        return yaml.safe_dump(self.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def relation_of(scenario: Scenario) -> str:
    """How the goals of a scenario stand to each other, as its id says: the part before the first hyphen, else `any`."""
    relation, hyphen, _ = scenario.id.partition("-")
    return relation if hyphen else "any"


def as_played(plays: Plays, arm: PlayArm, scenario: Scenario, seed: int) -> Scenario:
    """A scenario as an arm plays it: with its planner, strengths and model, and noise that all arms share.

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
    return Scenario.model_validate(data | {"planner": planner, "seed": seed, "model": plays.experiment.model})


def holds_scenarios(path: str | Path) -> bool:
    """Whether the file of an experiment is one over scenarios, by its keys.

    Raises:
        ExperimentError: it is no YAML.
        TextError: it is missing, unreadable, or not UTF-8.
    """
    return "scenarios" in _read(path)[1]


def load_plays(path: str | Path) -> Plays:
    """Read and check the file of an experiment over scenarios, and the scenarios.

    Raises:
        ExperimentError: it is no YAML, or does not fit the schema; one line `file:line: key: what is wrong` per error.
        ScenarioError: the same of a scenario.
        TextError: a file is missing, unreadable, or not UTF-8.
    """
    root, data = _read(path)
    known = {(): PlayExperiment, ("arms",): PlayArm, ("arms", "planner"): Planner}
    try:
        experiment = PlayExperiment.model_validate(data)
        scenarios, entries = _load_scenarios(experiment, Path(path).resolve().parent)
        plays = Plays(experiment.model_copy(update={"scenarios": entries}), scenarios)
        for index, arm in enumerate(experiment.arms):
            _check_arm(plays, index, arm)
    except pydantic.ValidationError as error:
        keys = {place: list(part.model_fields) for place, part in known.items()}
        raise ExperimentError(describe_errors(error, root, path, keys)) from error
    return plays


def _read(path: str | Path) -> tuple[yaml.MappingNode, Any]:
    try:
        return read_yaml(read_text(path, "experiment"), path, expected="id, arms, and pairs or scenarios")
    except ScenarioError as error:
        raise ExperimentError(str(error)) from error


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
