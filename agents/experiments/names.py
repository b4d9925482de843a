"""What the files of both kinds of experiments say alike: names of arms, seeds, and the reference among them."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from pydantic_core import PydanticCustomError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def check_arms(names: Sequence[tuple[int, str]], seeds: Sequence[int], reference: str | None) -> None:
    """Check what holds for experiments of either kind, in pydantic's manner.

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
