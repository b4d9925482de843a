"""The file of an experiment: YAML, checked by pydantic; unknown keys are errors, each with its line and key."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import Field

from agents.errors import ExperimentError
from agents.experiments.arms import ARMS, Options, options_of
from agents.experiments.names import Name, Seed, at, check_arms, slug
from agents.scenarios import schema as scenario
from agents.scenarios.schema import DEFAULT_MODEL, Identifier
from steer.records import StrictRecord, unknown_keys
from steer.text import read_text
from steer.yaml_file import read_yaml

Budget = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class PairSource(StrictRecord):
    """Where contexts and terminals come from: exactly one of `file`, `packaged` and `stories`.

    Attributes:
        file: JSON lines with `id`, `context` and `terminal`; a relative path starts from the experiment's file.
        packaged: name of a file that comes with the package.
        stories: text from which pairs are cut by `steer.data.pairs.make_pairs` (`.txt`, `.jsonl`, also `.gz`, or a
            folder).
        count, seed: of the pairs to cut; with `stories` alone.
    """

    file: str | None = None
    packaged: str | None = None
    stories: str | None = None
    count: int | None = Field(default=None, ge=2)
    seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [name for name in ("file", "packaged", "stories") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of file, packaged and stories; got {', '.join(given) or 'none'}")
        if (self.stories is None) != (self.count is None):
            raise ValueError("count goes with stories: stories: FILE, count: 100")
        return self


class Sampling(scenario.Sampling):
    """How tokens are drawn, in all arms. The defaults are as in `steer eval`: nothing keeps a text from repeating."""

    repetition_penalty: float = 1.0


class Arm(StrictRecord):
    """One way of writing.

    Attributes:
        name: in tables and figures.
        method: one of `agents.experiments.arms.ARMS`.
        budget: tokens that may be generated per pair, in multiples of `spans * span_tokens`.
        budgets: several of them; each becomes an arm of its own, `NAME x16`.
        options: of the method; in the file they stand beside the other keys.
    """

    name: Name
    method: str
    budget: Budget | None = None
    budgets: tuple[Budget, ...] = ()
    options: pydantic.SerializeAsAny[Options] = Options()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        own = set(cls.model_fields) - {"options"}
        rest = {key: value for key, value in data.items() if key not in own}
        arm = {key: value for key, value in data.items() if key in own}
        if data.get("method") not in ARMS:
            return arm  # the check of `method` tells
        kind = options_of(data["method"])
        known = [*sorted(own), *kind.model_fields]
        if error := unknown_keys(rest, known, f"key for an arm of method {data['method']}"):
            raise error
        return arm | {"options": kind.model_validate(rest)}

    @pydantic.field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in ARMS:
            raise ValueError(f"unknown method; expected one of {', '.join(ARMS)}")
        return method

    @pydantic.model_validator(mode="after")
    def _check_budget(self) -> Self:
        given = [name for name in ("budget", "budgets") if getattr(self, name)]
        if self.options.budgeted and len(given) != 1:
            raise ValueError(f"method {self.method} needs budget or budgets, one of the two")
        if given and not self.options.budgeted:
            raise at(given[0], f"method {self.method} has no budget; leave {given[0]} out")
        if len(set(self.budgets)) < len(self.budgets):
            raise at("budgets", f"a budget stands twice in {list(self.budgets)}")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _flatten(self, handler: Any) -> dict[str, Any]:
        data = handler(self)
        return data | data.pop("options")


@dataclass(frozen=True)
class Variant:
    """An arm with one of its budgets: a row of the tables.

    Attributes:
        name: the arm's, with ` x16` behind it where the arm has several budgets.
        arm, budget: of it.
    """

    name: str
    arm: Arm
    budget: float | None

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return slug(self.name)


class Experiment(StrictRecord):
    """A whole experiment.

    Attributes:
        id, title: for people and file names.
        model: hub id, folder, or name of the packaged model.
        pairs: contexts and terminals; all arms share them.
        limit: use only the first pairs; may change between runs in the same folder.
        spans: written per pair.
        seeds: each pair is written once with each; all arms share them.
        sampling: how tokens are drawn, in all arms.
        rewards: settings for `steer.rewards.RewardsConfig`, for arms that search; by default the search's own.
        reached: similarity to the terminal, by the judge, from which a span counts as having reached it.
        chunk: pairs written together. A run that is stopped loses at most one chunk per process.
        reference: name of the arm that the others are tested against; by default the first.
        arms: what is compared.
    """

    schema_version: Literal[1] = 1
    id: Identifier
    title: str = ""
    model: str = DEFAULT_MODEL
    pairs: PairSource
    limit: int | None = Field(default=None, ge=2)
    spans: int = Field(default=6, ge=1, le=256)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    sampling: Sampling = Sampling()
    rewards: dict[str, Any] | None = None
    reached: float = Field(default=0.5, gt=0, le=1)
    chunk: int = Field(default=20, ge=1, le=4096)
    reference: str | None = None
    arms: tuple[Arm, ...] = Field(min_length=1)

    @pydantic.field_validator("rewards")
    @classmethod
    def _check_rewards(cls, rewards: dict[str, Any] | None) -> dict[str, Any] | None:
        if rewards is not None:
            from steer.rewards import RewardsConfig

            RewardsConfig.model_validate(rewards)
        return rewards

    @pydantic.model_validator(mode="after")
    def _check_whole(self) -> Self:
        names = [(index, variant.name) for index, arm in enumerate(self.arms) for variant in expand(arm)]
        check_arms(names, self.seeds, self.reference)
        return self

    def variants(self) -> list[Variant]:
        """All arms, each with each of its budgets."""
        return [variant for arm in self.arms for variant in expand(arm)]

    def settings(self) -> dict[str, Any]:
        """All that decides what is written; title, limit and the place of the pairs do not."""
        return self.model_dump(mode="json", exclude={"title", "limit", "pairs", "reference"})

    def to_yaml(self) -> str:
        """The experiment as a file that `load_experiment` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def expand(arm: Arm) -> Iterator[Variant]:
    """An arm with each of its budgets."""
    if not arm.budgets:
        yield Variant(arm.name, arm, arm.budget)
    for budget in arm.budgets:
        yield Variant(f"{arm.name} x{budget:g}", arm, budget)


def load_experiment(path: str | Path) -> Experiment:
    """Read and check the file of an experiment. Relative paths become absolute, from the file's folder.

    Texts that an arm names by a file, as `samples` of a voice, are read: they decide what is written, wherever the file
    lies.

    Raises:
        ExperimentError: it is no YAML, or does not fit the schema; one line `file:line: key: what is wrong` per error.
        TextError: it is missing, unreadable, or not UTF-8.
    """
    file = read_yaml(path, "experiment", expected="id, pairs and arms", error=ExperimentError)
    with file.checked(Experiment):
        experiment = Experiment.model_validate(_with_files(file.data, Path(path).resolve().parent))
    folder = Path(path).resolve().parent
    places = {key: str(folder / p) for key in ("file", "stories") if (p := getattr(experiment.pairs, key)) is not None}
    return experiment.model_copy(update={"pairs": experiment.pairs.model_copy(update=places)})


def _with_files(data: Any, folder: Path) -> Any:
    """The data of a file, with each index from the file's folder, and the lines of a file of samples for its name."""
    arms = data.get("arms")
    for arm in arms if isinstance(arms, list) else ():
        if isinstance(arm, dict) and isinstance(arm.get("store"), str):
            arm["store"] = str(folder / arm["store"])
        if isinstance(arm, dict) and isinstance(arm.get("samples"), str):
            lines = read_text(folder / arm["samples"], "file of samples").splitlines()
            arm["samples"] = [line.strip() for line in lines if line.strip()]
    return data
