"""An experiment over scenarios: `scenarios` in place of `pairs`, and arms that change the planner.

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
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import Field

from agents.experiments.names import Name, Seed, check_arms, slug
from agents.scenarios.planner_settings import SEARCH_KEYS, SEARCHES, Planner, Share
from agents.scenarios.schema import DEFAULT_MODEL, Identifier, Scenario
from steer.noise import derive_seed
from steer.records import KeysOf, StrictRecord

ROLES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class PlayArm(StrictRecord):
    """One way of playing.

    Attributes:
        name: in tables.
        planner: keys that replace those of a scenario's `planner`; a path in it starts from the experiment's file.
        strengths: factors on the weights of a character's goals, by its id, or by its place: `first`, `second`, ...
        relations: play the scenarios of these relations alone; by default all.
    """

    name: Name
    planner: Annotated[dict[str, Any], KeysOf(Planner)] = {}
    strengths: dict[str, Share] = {}
    relations: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return slug(self.name)

    def plays(self, scenario: Scenario) -> bool:
        """Whether the arm is played in a scenario."""
        return not self.relations or relation_of(scenario) in self.relations


class PlayExperiment(StrictRecord):
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
        names = [(index, arm.name) for index, arm in enumerate(self.arms)]
        check_arms(names, self.seeds, self.reference)
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
