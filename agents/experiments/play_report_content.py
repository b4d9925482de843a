"""What stands in the report of an experiment over scenarios, gathered from the files that it left."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.errors import RunDamaged
from agents.experiments.folder import RESULTS, SAMPLES
from agents.experiments.play_manifest import FILE, PlayManifest, read_plays
from agents.experiments.play_results import PlayResults, PlayRow
from agents.experiments.play_tables import show
from agents.experiments.report_content import differences
from agents.experiments.statistics import means

SHOWN = 2  # scenarios of each relation
PARTS = 10  # of a run, in the figure of its course
HEADLINE = "told"
_BLANK = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class PlayText:
    """What one arm played of a scenario.

    Attributes:
        arm: its name.
        facts: its numbers, in a few words.
        goals: what became of each goal, a line each.
        turns: of each its number and character, and its text.
    """

    arm: str
    facts: str
    goals: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PlaySample:
    """A scenario, and what the arms played of it with the first seed."""

    scenario: str
    opening: str
    goals: tuple[str, ...]
    texts: tuple[PlayText, ...]


@dataclass(frozen=True, eq=False)
class PlayReport:
    """What stands in a report.

    Attributes:
        results, manifest: of the run.
        settings: the experiment's file.
        samples: the first scenarios of each relation.
        courses: for each arm that is played in all scenarios, the nearest that its goals came up to each tenth of a
            run, float64 `[PARTS]`: means over goals and runs, by the judge; NaN without one.
        runs, tokens, seconds: of the whole experiment.
    """

    results: PlayResults
    manifest: PlayManifest
    settings: str
    samples: tuple[PlaySample, ...]
    courses: Mapping[str, NDArray[np.float64]]
    runs: int
    tokens: float
    seconds: float


def read_play_report(run: Path) -> PlayReport:
    """Gather what stands in the report of a finished run.

    Raises:
        RunDamaged: the run is not finished, or its files were changed.
    """
    manifest = read_plays(run)
    results = PlayResults.load(run / RESULTS)
    path = run / SAMPLES
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        settings = (run / FILE).read_text(encoding="utf-8")
        arms = [row.arm for row in results.whole()]
        tokens, seconds = (sum(row["measures"][name] or 0 for row in rows) for name in ("tokens", "seconds"))
        samples, courses = _samples(rows, results), _courses(rows, arms)
        return PlayReport(results, manifest, settings, samples, courses, len(rows), tokens, seconds)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamaged(
            f"{path} holds no runs of this experiment ({error}); give its `steer experiment` command again, which "
            "makes it anew"
        ) from error


def play_findings(results: PlayResults) -> list[str]:
    """What the results say, in sentences."""
    if not results.judged:
        return ["Goals were not judged: the judge was not installed when the runs were measured."]
    arms = {row.arm: row for row in results.whole()}
    said: list[str] = []
    best = max(arms.values(), key=_headline, default=None)
    if best is not None:
        reference = arms.get(results.reference)
        other = f"; with the reference {results.reference}: {_told(reference)}" if reference else ""
        said.append(f"Goals were told most often with {best.arm}: {_told(best)}{other}.")
        said.append(
            f"By their own account the runs of {best.arm} reached {show(best.measures['reached'], 'reached')}: read "
            "`told`, which is judged from outside."
        )
    tests = [test for arm in results.arms() if (test := results.test(HEADLINE, arm)) is not None]
    said += differences(tests, results.reference, len(tests), "Goals were told {} often")
    return said


def _headline(row: PlayRow) -> float:
    mean = row.measures[HEADLINE].mean
    return -1.0 if math.isnan(mean) else mean


def _told(row: PlayRow) -> str:
    return show(row.measures[HEADLINE], HEADLINE)


def _samples(rows: Sequence[Mapping[str, Any]], results: PlayResults) -> tuple[PlaySample, ...]:
    """The first scenarios of each relation with the first seed, in the order of the file."""
    first = [row for row in rows if row["seed"] == results.seeds[0]]
    relations: dict[str, dict[str, None]] = {}
    for row in first:
        relations.setdefault(row["relation"], {})[row["scenario"]] = None
    found = []
    for scenario in [name for names in relations.values() for name in list(names)[:SHOWN]]:
        own = [row for row in first if row["scenario"] == scenario]
        goals = tuple(f"{goal['goal']} ({goal['role'] or '-'}): {goal['text']}" for goal in own[0]["goals"])
        found.append(PlaySample(scenario, own[0]["opening"], goals, tuple(map(_text, own))))
    return tuple(found)


def _text(row: Mapping[str, Any]) -> PlayText:
    forms = {"base_nll": "NLL {:.2f}", "tokens": "{:,.0f} tokens"}
    facts = [form.format(row["measures"][name]) for name, form in forms.items() if row["measures"][name] is not None]
    return PlayText(
        row["arm"],
        ", ".join(facts),
        tuple(map(_fate, row["goals"])),
        tuple(
            (f"{number}. {turn['character']}", _BLANK.sub("\n", turn["text"]).strip())
            for number, turn in enumerate(row["turns"], start=1)
        ),
    )


def _fate(goal: Mapping[str, Any]) -> str:
    """What became of a goal in a run: told or not, how near it came, and the run's own account."""
    judged = "" if goal["told"] is None else "told" if goal["told"] else "not told"
    near = "" if goal["similarity"] is None else f"{goal['similarity']:.2f}"
    own = "run: reached" if goal["reached"] else "run: not reached"
    return f"{goal['goal']}: " + ", ".join(part for part in (judged, near, own) if part)


def _courses(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """See `PlayReport.courses`. A run of fewer turns than tenths stands still in some of them."""
    found = {}
    for arm in arms:
        goals = [goal["by_turn"] for row in rows if row["arm"] == arm for goal in row["goals"] if goal["by_turn"]]
        courses = np.full((len(goals), PARTS), np.nan)
        for course, by_turn in zip(courses, goals, strict=True):
            near = np.array([-np.inf if value is None else value for value in by_turn])
            turns = np.ceil(np.arange(1, PARTS + 1) / PARTS * len(near)).astype(int)
            course[:] = np.maximum.accumulate(near)[turns - 1]
        found[arm] = means(np.where(np.isfinite(courses), courses, np.nan))
    return found
