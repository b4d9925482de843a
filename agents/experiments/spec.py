"""What the files of all kinds of experiments say alike: id, title, model, seeds, and the reference among the arms."""

import abc
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
import yaml
from pydantic import Field
from pydantic_core import PydanticCustomError

from agents.scenarios.schema import DEFAULT_MODEL, Identifier
from steer.records import StrictRecord

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Experiment(StrictRecord, abc.ABC):
    """The file of an experiment, of whatever kind.

    Attributes:
        id, title: for people and file names.
        model: hub id, folder, or name of the packaged model.
        seeds: each arm is written once with each; all arms share them.
        reference: name of the arm that the others are tested against; by default the first.
    """

    not_settings: ClassVar[frozenset[str]] = frozenset({"title", "reference"})  # keys that decide nothing

    schema_version: Literal[1] = 1
    id: Identifier
    title: str = ""
    model: str = DEFAULT_MODEL
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    reference: str | None = None

    @pydantic.model_validator(mode="after")
    def _check_arms(self) -> Self:
        check_arms(self.arm_names(), self.seeds, self.reference)
        return self

    @abc.abstractmethod
    def arm_names(self) -> list[tuple[int, str]]:
        """Names as they stand in the tables, in order, each with the index of its arm in the file."""

    @property
    def reference_name(self) -> str:
        """Name of the arm that the others are tested against."""
        return self.reference or self.arm_names()[0][1]

    def settings(self) -> dict[str, Any]:
        """All in the file that decides what is written, but for what the experiment is over; plain JSON."""
        return self.model_dump(mode="json", exclude=set(self.not_settings))

    def to_yaml(self) -> str:
        """The experiment as a file that `load_experiment` reads back to an equal one; its paths are absolute."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def check_arms(names: Sequence[tuple[int, str]], seeds: Sequence[int], reference: str | None) -> None:
    """Check what holds for experiments of any kind, in pydantic's manner.

    Args:
        names: in the tables, each with the index of its arm.
        seeds: of the experiment.
        reference: a name, if one is given.

    Raises:
        PydanticCustomError: a seed stands twice, names would share files, or there is no such reference.
    """
    if len(set(seeds)) < len(seeds):
        raise at("seeds", f"a seed stands twice in {list(seeds)}")
    seen: dict[str, str] = {}
    for index, name in names:
        if slug(name) in seen:
            raise at(f"arms.{index}.name", f"{name!r} and {seen[slug(name)]!r} would share files")
        seen[slug(name)] = name
    if reference is not None and reference not in seen.values():
        raise at("reference", f"no such arm; expected one of {', '.join(seen.values())}")


def at(place: str, message: str) -> PydanticCustomError:
    """An error of a whole that belongs to one place in it."""
    # The message goes in as a value: braces in it are not for pydantic to fill.
    return PydanticCustomError("experiment", "{message}", {"message": message, "place": place})
