"""What the results of both kinds of experiments have in common: paired tests against the reference, and their file."""

import abc
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from agents.errors import RunDamaged
from agents.experiments.statistics import Comparison, Estimate, compare, holm


@dataclasses.dataclass(frozen=True)
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
    p_holm: float


class RunResults(abc.ABC):
    """All numbers of a run, of pairs or of scenarios; a frozen dataclass."""

    reference: str
    tests: tuple[TestedPair, ...]

    def test(self, measure: str, arm: str) -> TestedPair | None:
        """The test of an arm against the reference; None for the reference itself."""
        return next((t for t in self.tests if (t.measure, t.first) == (measure, arm)), None)

    def to_json(self) -> str:
        """As a JSON document; NaN is null."""
        return json.dumps(plain_json(vars(self)), ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `to_json` gave.

        Raises:
            RunDamaged: the file is missing or holds something else.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            common = {"seeds": tuple(data["seeds"]), "tests": tuple(map(_read_test, data["tests"]))}
            return cls(**{**data, **common, **cls._read(data)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunDamaged(
                f"{path} holds no results of an experiment ({error}); give the `steer experiment` command of the run "
                "again, which makes it anew"
            ) from error

    @staticmethod
    @abc.abstractmethod
    def _read(data: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that are of one kind alone, as `plain_json` wrote them."""


def compare_arms(
    values: Mapping[str, Mapping[str, np.ndarray]], reference: str, weights: np.ndarray
) -> tuple[TestedPair, ...]:
    """Test each arm against the reference, by measure.

    Args:
        values: of each measure by arm, `[pairs]`.
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


def plain_json(value: Any) -> Any:
    """A value that JSON can hold: what is not finite becomes null, sequences become lists, dataclasses objects."""
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value


def read_measures(data: Mapping[str, Any]) -> dict[str, Estimate]:
    """Estimates by measure, as `plain_json` wrote them."""
    return {name: Estimate(**_numbers(value)) for name, value in data.items()}


def _read_test(data: Mapping[str, Any]) -> TestedPair:
    comparison = data["comparison"]
    difference = Estimate(**_numbers(comparison["difference"]))
    compared = Comparison(**{**_numbers(comparison), "difference": difference})
    return TestedPair(**{**_numbers(data), "comparison": compared})


def _numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as `plain_json` wrote them: null was NaN."""
    return {name: math.nan if value is None else value for name, value in data.items()}
