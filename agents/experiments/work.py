"""Doing the cells of a run: what nobody has claimed, until all is done, whoever did it; then the report is made.

Both kinds of experiments go this way. Whatever is done is on the disk, cell by cell, so a run is safe to stop, to
repeat and to share: two processes on one folder take different cells, and each ends when all are done.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, final

from agents.experiments.bench import Embedder
from agents.experiments.folder import CLAIMS, claim

POLL_SECONDS = 0.5


class Unit(Protocol):
    """A cell, as far as it matters here."""

    @property
    def key(self) -> str:
        """Its file name."""
        ...

    @property
    def row(self) -> str:
        """The row of the tables that it is counted in."""
        ...


C = TypeVar("C", bound=Unit)
R = TypeVar("R")


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


OnProgress = Callable[[Mapping[str, Tally], Any], None]  # by arm; and the cell, or None at the start


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What a run came to.

    Attributes:
        folder: of the run.
        cells: of the experiment.
        written, measured: cells that this call wrote (or went on with), and those that it only measured.
        results: all numbers.
        files: that were made of them.
    """

    folder: Path
    cells: int
    written: int
    measured: int
    results: R
    files: tuple[Path, ...]


@final
class Lazy:
    """Something that is made when it is first needed, and kept.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: list[Any] = []

    def __call__(self) -> Any:
        """The thing."""
        if not self._made:
            self._made.append(self._make())
        return self._made[0]


def run_cells(
    folder: Path,
    cells: Sequence[C],
    *,
    look: Callable[[C, bool], Tally | None],
    open_judge: Callable[[], Embedder | None],
    begin: Callable[[Embedder | None], Callable[[C], bool]],
    report: Callable[[bool], tuple[R, Sequence[Path]]],
    on_progress: OnProgress | None,
) -> Outcome[R]:
    """Do every cell that is missing, and make the report.

    Args:
        folder: of the run, which was started.
        cells: in the order in which to do them.
        look: what a cell on the disk adds to the tally of its arm; None where it is not written, or lacks a measure.
            The flag says whether measures that need a judge count.
        open_judge: gives the judge, or None; called only if there may be something to judge.
        begin: called with the judge if anything is missing; gives what does a cell, and says whether it wrote anything.
        report: makes the results and their files when all is done, with the same flag.
        on_progress: called at the start and after each cell with all tallies by arm, and the cell.
    """
    tallies: dict[str, Tally] = {}
    for cell in cells:
        tallies[cell.row] = tallies.get(cell.row, Tally()) + Tally(cells=1)
    done: set[str] = set()
    counts, judged = {True: 0, False: 0}, True

    def take_in(cell: C) -> bool:
        """Whether a cell is done, by us or by others; what is new goes into the tallies."""
        if cell.key not in done and (found := look(cell, judged)) is not None:
            done.add(cell.key)
            tallies[cell.row] += found
        return cell.key in done

    if left := [cell for cell in cells if not take_in(cell)]:
        judge = open_judge()
        judged = judge is not None
        if left := [cell for cell in left if not take_in(cell)]:
            do = begin(judge)
            if on_progress:
                on_progress(tallies, None)
            while left:
                pending, left = left, []
                for cell in pending:
                    with claim(folder / CLAIMS / cell.key) as mine:
                        ours = mine and not take_in(cell)  # another process may have done it since we looked
                        if ours:
                            counts[do(cell)] += 1
                    if not take_in(cell):
                        left.append(cell)
                    elif ours and on_progress:
                        on_progress(tallies, cell)
                if len(left) == len(pending):
                    time.sleep(POLL_SECONDS)  # others are doing all that is left; if one of them dies, we take over
    with claim(folder / CLAIMS / "report", wait=True):
        results, files = report(judged)
    return Outcome(folder, len(cells), counts[True], counts[False], results, tuple(files))
