"""The contract: what an experiment may be over, such as pairs of context and terminal, or scenarios.

A `Kind` says how a file is read, which cells there are, how one is done, and what is observed in those that are done.
All else is written once for all kinds: the way of a run (`run`), results, tables, figures, report and forecast. A new
kind is a folder with a `Kind` in it, and a line in `agents.experiments.load.KINDS`.
"""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from agents.experiments.measures import Embedder, JudgeContext, Measure
from agents.experiments.spec import Experiment
from steer.models.latent_model import LatentModel

ROLES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")  # places of characters


class Cell(Protocol):
    """One unit of work: done as a whole, by one process."""

    @property
    def key(self) -> str:
        """Its file name."""
        ...

    @property
    def row(self) -> str:
        """Name of its arm in the tables."""
        ...

    @property
    def label(self) -> str:
        """What it is, for people."""
        ...

    @property
    def units(self) -> int:
        """Texts, or runs, in it."""
        ...

    @property
    def size(self) -> int:
        """How much work it is, compared with other cells of its arm."""
        ...


@dataclass(frozen=True)
class Tally:
    """How far one arm is.

    Attributes:
        cells, done: of it, in all and so far.
        texts: written so far; of scenarios, goals.
        hits: sum of the measure of success over them; NaN where it is not taken.
        tokens, seconds: spent on them.
    """

    cells: int = 0
    done: int = 0
    texts: int = 0
    hits: float = 0.0
    tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class ArmInfo:
    """An arm as tables and figures show it.

    Attributes:
        name: in the tables.
        family: name in the file; arms that differ in their budget alone share it.
        method: of writing, where the kind has methods.
        budget: in multiples of a text's tokens, where the arm has one.
        diegetic: whether the goal stood in the visible text.
    """

    name: str
    family: str
    method: str = ""
    budget: float | None = None
    diegetic: bool = False


@dataclass(frozen=True)
class Observation:
    """What was measured of one item in one arm with one seed.

    Attributes:
        arm, item: the arm's name in the tables, the item's id.
        values: by measure; NaN where there is none.
        role: of the characters whose goals are counted; empty for all of them.
    """

    arm: str
    item: str
    values: Mapping[str, float]
    role: str = ""


@dataclass(frozen=True)
class Observed:
    """All that was observed in the cells of a run.

    Attributes:
        groups: the group of each item by its id, in order; empty where the kind has none.
        observations: of all cells, seed by seed.
        samples: what was written, as lines of `samples.jsonl`; each has `arm`, `seed` and `measures`.
        facts: numbers that the captions name.
        courses: how near the goals of an arm came up to each part of a text, where the kind has that.
    """

    groups: Mapping[str, str]
    observations: Sequence[Observation]
    samples: Sequence[Mapping[str, Any]]
    facts: Mapping[str, float]
    courses: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmText:
    """What one arm wrote, in an example.

    Attributes:
        arm: its name.
        facts: its numbers, in a few words.
        goals: what became of each goal, a line each.
        parts: of the text: who wrote it (empty where nobody did), and what.
    """

    arm: str
    facts: str
    goals: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Example:
    """An item, and what the arms wrote for it with the first seed.

    Attributes:
        name, summary: of the item, short and in a line.
        given: what the arms were given, by what it is.
        goals: a line each, where there are several.
        texts: by arm.
    """

    name: str
    summary: str
    given: tuple[tuple[str, str], ...]
    goals: tuple[str, ...]
    texts: tuple[ArmText, ...]


@dataclass(frozen=True)
class Captions:
    """The words and the choices of a kind; braces are filled with numbers of the results.

    Attributes:
        item, unit, counted: what intervals are over, what is written for one, and what progress counts; all plural.
        progress: the measure that progress shows.
        headline: the measure of success.
        about: what was compared, in one sentence.
        judging: what is judged, plural.
        judged: how the judge's measures are to be read.
        unjudged: what findings say where there was no judge.
        titles: of the tables, by group of measures.
        verdict: measures of the first table.
        tested: measures whose tests stand in the tables.
        paired_by: what a pair of the tests is, where tables count them.
        by_group, by_role: measures of the tables by group of items, and by role.
        best, differs, own: findings: which arm was best, what arms did `{}` (more, less) often, the arm's own account.
        success, axis: the headline in captions and beside the axis of figures.
        examples: how examples were chosen.
        tests: what is compared in the tests.
    """

    item: str
    unit: str
    counted: str
    progress: str
    headline: str
    about: str
    judging: str
    judged: str
    unjudged: str
    titles: Mapping[str, str]
    verdict: tuple[str, ...]
    tested: tuple[str, ...]
    best: str
    differs: str
    success: str
    axis: str
    examples: str
    tests: str
    paired_by: str = ""
    by_group: tuple[str, ...] = ()
    by_role: tuple[str, ...] = ()
    own: str = ""


C = TypeVar("C", bound=Cell)


class Kind(abc.ABC, Generic[C]):
    """What an experiment is over, with the experiment of one file.

    Attributes:
        name: the key of the file that says what the experiment is over.
        spec: record of the file.
        measures: by name.
        captions: words of tables and report.
        experiment: the file.
    """

    name: ClassVar[str]
    spec: ClassVar[type[Experiment]]
    measures: ClassVar[dict[str, Measure]]
    captions: ClassVar[Captions]

    experiment: Experiment

    # -- the file

    @staticmethod
    @abc.abstractmethod
    def absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The data of a file, with its paths made absolute from `folder`; files that decide what is written are read.

        Raises:
            TextError: one of these is missing, unreadable, or not UTF-8.
        """

    @staticmethod
    @abc.abstractmethod
    def check(experiment: Any) -> None:
        """Check what the record alone cannot see.

        Raises:
            ValidationError: something does not fit; the place is the one in the file.
        """

    @classmethod
    @abc.abstractmethod
    def make(cls, experiment: Any, load_model: Any) -> Self:
        """The kind with the items of an experiment.

        Raises:
            ExperimentError, CorpusError, ScenarioError, TextError: the items cannot be used.
        """

    @classmethod
    @abc.abstractmethod
    def read(cls, experiment: Any, folder: Path) -> Self:
        """The same, with the items that a run was started with.

        Raises:
            ExperimentError, ScenarioError, TextError: they cannot be used.
        """

    # -- the run

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that decides what is written, items included by their hashes; plain JSON."""

    @abc.abstractmethod
    def files(self) -> dict[str, str]:
        """What a run keeps of its items: contents by file name."""

    @abc.abstractmethod
    def plan(self, limit: int | None = None) -> list[C]:
        """All cells, or those of the first `limit` items, in the order in which to do them."""

    @abc.abstractmethod
    def arms(self) -> list[ArmInfo]:
        """All arms, in the order of the file."""

    @abc.abstractmethod
    def context(self, model: LatentModel, judge: Embedder | None) -> JudgeContext:
        """What measuring needs besides the texts."""

    @abc.abstractmethod
    def look(self, folder: Path, cell: C, *, judged: bool) -> Tally | None:
        """What a cell on the disk adds to the tally of its arm; None where it is not written, or lacks a measure.

        Args:
            folder: of the run.
            cell: to look at.
            judged: whether measures that need a judge count.

        Raises:
            RunDamaged: its files were changed.
        """

    @abc.abstractmethod
    def do(self, folder: Path, cell: C, context: JudgeContext) -> bool:
        """Write a cell where it is not written yet, and take the measures that it lacks.

        Returns:
            Whether anything was written.
        """

    @abc.abstractmethod
    def observe(self, folder: Path, cells: Sequence[C], *, judged: bool) -> Observed:
        """All that was observed in cells that are done."""

    # -- the forecast

    @abc.abstractmethod
    def trial(self, cell: C, model: LatentModel) -> tuple[float, float]:
        """Tokens and seconds that a cell's work takes, per unit of `size`, from a small sample."""

    @abc.abstractmethod
    def cached_tokens(self, cells: Sequence[C], model: LatentModel, tokens: float) -> float:
        """Tokens whose keys and values are held at once, of arms that generate so many `tokens` per unit of size."""

    # -- the report

    @classmethod
    @abc.abstractmethod
    def examples(cls, samples: Sequence[Mapping[str, Any]], seed: int) -> tuple[Example, ...]:
        """The first items with the first seed, from the lines of `samples.jsonl`; nothing is chosen."""


def fill(numbers: Mapping[str, float | None], forms: Mapping[str, str]) -> str:
    """Numbers that are there in their forms, with commas between."""
    return ", ".join(form.format(value) for name, form in forms.items() if (value := numbers.get(name)) is not None)
