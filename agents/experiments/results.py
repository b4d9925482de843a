"""Results of an experiment: means with intervals for each arm, by group and by role, and paired tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import pydantic
from numpy.typing import NDArray

from agents.errors import RunDamaged
from agents.experiments.kind import ROLES, ArmInfo, Kind, Observation, Observed
from agents.experiments.measures import takeable
from agents.experiments.statistics import (
    Comparison,
    Estimate,
    Number,
    bootstrap_weights,
    compare,
    estimate,
    holm,
    means,
)

ALL = "all"
Means = Mapping[str, NDArray[np.float64]]  # over seeds `[items]`, by measure


@dataclass(frozen=True)
class Row:
    """One row of the tables.

    Attributes:
        arm: its name.
        group: of the items that are counted; `all` for all of them.
        role: of the characters whose goals are counted; empty for all of them.
        items: how many.
        measures: mean and interval over items, by measure.
    """

    arm: str
    group: str
    role: str
    items: int
    measures: Mapping[str, Estimate]


@dataclass(frozen=True)
class TestedPair:
    """One arm against another on one measure.

    Attributes:
        measure, first, second: what is compared.
        comparison: the outcome.
        p_holm: p adjusted for all arms that are tested against `second` on this measure.
    """

    measure: str
    first: str
    second: str
    comparison: Comparison
    p_holm: Number


@final
@dataclass(frozen=True)
class Results:
    """All numbers of a run.

    Attributes:
        kind: what the experiment is over.
        id, title, model, seeds: of the experiment.
        items: ids of the pairs or scenarios in use.
        reference: name of the arm that the others are tested against.
        judged: whether there was a judge.
        facts: what captions name, such as the number of terminals that a right one is told from.
        arms: in the order of the file.
        rows: see there. An arm has a row for all items, and for a group, if it was written for each of them.
        tests: of each other arm against the reference, on the items that both were written for, by measure.
        courses: see `agents.experiments.kind.Observed`.
    """

    kind: str
    id: str
    title: str
    model: str
    seeds: tuple[int, ...]
    items: tuple[str, ...]
    reference: str
    judged: bool
    facts: Mapping[str, Number]
    arms: tuple[ArmInfo, ...]
    rows: tuple[Row, ...]
    tests: tuple[TestedPair, ...]
    courses: Mapping[str, tuple[Number, ...]]

    @property
    def name(self) -> str:
        """The title, or else the id."""
        return self.title or self.id

    @property
    def measures(self) -> list[str]:
        """Names of the measures that were taken."""
        return list(self.rows[0].measures)

    def arm(self, name: str) -> ArmInfo:
        """An arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def row(self, arm: str, group: str = ALL, role: str = "") -> Row | None:
        """A row; None where the arm has no such row."""
        return next((r for r in self.rows if (r.arm, r.group, r.role) == (arm, group, role)), None)

    def whole(self) -> list[Row]:
        """The rows for all items, of the arms that were written for each."""
        return [row for row in self.rows if (row.group, row.role) == (ALL, "")]

    def groups(self) -> list[str]:
        """The groups that there are, without `all`."""
        return sorted({row.group for row in self.rows} - {ALL})

    def roles(self, group: str) -> list[str]:
        """The roles that there are in a group."""
        return list(dict.fromkeys(row.role for row in self.rows if row.role and row.group == group))

    def test(self, measure: str, arm: str) -> TestedPair | None:
        """The test of an arm against the reference; None for the reference itself."""
        return next((t for t in self.tests if (t.measure, t.first) == (measure, arm)), None)

    def to_json(self) -> str:
        """As a JSON document; NaN is null."""
        return pydantic.TypeAdapter(Results).dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `to_json` gave.

        Raises:
            RunDamaged: the file is missing or holds something else.
        """
        try:
            return pydantic.TypeAdapter(cls).validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            what = error.errors()[0]["msg"] if isinstance(error, pydantic.ValidationError) else error
            raise RunDamaged(
                f"{path} holds no results of an experiment ({what}); give the `steer experiment` command of the run "
                "again, which makes it anew"
            ) from error


def summarise(kind: Kind[Any], observed: Observed, *, judged: bool) -> Results:
    """Compute the results of what was observed.

    Args:
        kind: with its experiment.
        observed: in all cells of the items in use.
        judged: whether there was a judge.
    """
    experiment, arms, items = kind.experiment, kind.arms(), list(observed.groups)
    of_arm: dict[str, list[Observation]] = {arm.name: [] for arm in arms}
    for observation in observed.observations:
        of_arm[observation.arm].append(observation)
    names, weights = takeable(kind.measures, judged=judged), bootstrap_weights(len(items))
    overall = {arm: _means(found, items, "") for arm, found in of_arm.items()}
    nothing = np.full(len(items), np.nan)
    by_measure = {name: {arm: found.get(name, nothing) for arm, found in overall.items()} for name in names}
    return Results(
        kind=kind.name,
        id=experiment.id,
        title=experiment.title,
        model=experiment.model,
        seeds=experiment.seeds,
        items=tuple(items),
        reference=experiment.reference_name,
        judged=judged,
        facts=observed.facts,
        arms=tuple(arms),
        rows=tuple(row for found in of_arm.values() for row in _rows(found, observed.groups)),
        tests=compare_arms(by_measure, experiment.reference_name, weights),
        courses={arm: tuple(course) for arm, course in observed.courses.items()},
    )


def compare_arms(values: Mapping[str, Means], reference: str, weights: NDArray[np.float64]) -> tuple[TestedPair, ...]:
    """Test each arm against the reference, by measure.

    Args:
        values: of each measure by arm, `[items]`.
        reference: name of an arm.
        weights: see `agents.experiments.statistics.bootstrap_weights`.
    """
    tests: list[TestedPair] = []
    for name, by_arm in values.items():
        found = {arm: compare(own, by_arm[reference], weights) for arm, own in by_arm.items() if arm != reference}
        adjusted = holm([comparison.p for comparison in found.values()])
        tests += [
            TestedPair(name, arm, reference, comparison, p)
            for (arm, comparison), p in zip(found.items(), adjusted, strict=True)
        ]
    return tuple(tests)


def _rows(found: Sequence[Observation], groups: Mapping[str, str]) -> Iterator[Row]:
    """The rows of one arm: for all items and for each group, where there are several; of all goals, and by role."""
    written, named = {observation.item for observation in found}, sorted(set(groups.values()))
    roles = sorted({observation.role for observation in found}, key=("", *ROLES).index)
    for group in [ALL, *(named if len(named) > 1 else [])]:
        items = [item for item, own in groups.items() if group in (ALL, own)]
        if not written.issuperset(items):
            continue
        weights = bootstrap_weights(len(items))
        for role in roles:
            if values := _means(found, items, role):
                estimates = {name: estimate(value, weights) for name, value in values.items()}
                yield Row(found[0].arm, group, role, len(items), estimates)


def _means(found: Sequence[Observation], items: Sequence[str], role: str) -> dict[str, NDArray[np.float64]]:
    """Means over seeds; NaN where nothing was written, or nobody has the role. Nothing where that is so of all."""
    seeds: dict[str, list[Mapping[str, float]]] = {item: [] for item in items}
    for observation in found:
        if observation.role == role and observation.item in seeds:
            seeds[observation.item].append(observation.values)
    names = next((list(own[0]) for own in seeds.values() if own), [])
    return {
        name: np.array([float(means(np.array([values[name] for values in own]))) for own in seeds.values()])
        for name in names
    }
