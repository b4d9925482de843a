"""What results say, in sentences: which arm was best, and which differ from the reference beyond chance."""

import math

from agents.experiments.results import Results, Row
from agents.experiments.tables import captions_of, show

SIGNIFICANT = 0.05


def findings(results: Results) -> list[str]:
    """What the results say; controls that tell the goal are left out, unless one is the reference."""
    words = captions_of(results)
    if not results.judged:
        return [words.unjudged]
    arms = [arm.name for arm in results.arms if arm.name == results.reference or not arm.diegetic]
    rows = {row.arm: row for row in results.whole() if row.arm in arms}
    said: list[str] = []
    if rows:
        shown = {
            arm: {name: show(results, value, name) for name, value in row.measures.items()} for arm, row in rows.items()
        }
        best = max(rows.values(), key=lambda row: _mean(row, words.headline)).arm
        reference = results.reference
        other = f"; with the reference {reference}: {shown[reference][words.headline]}" if reference in rows else ""
        said.append(f"{words.best} {best}: {shown[best][words.headline]}{other}.")
        if words.own:
            said.append(words.own.format(best=best, **shown[best]))
    return said + _differences(results, arms)


def _mean(row: Row, measure: str) -> float:
    """The mean, or what is smaller than any share where there is none."""
    mean = row.measures[measure].mean
    return -1.0 if math.isnan(mean) else mean


def _differences(results: Results, arms: list[str]) -> list[str]:
    """Which of these arms differ from the reference beyond chance."""
    words = captions_of(results)
    tests = [test for arm in arms if (test := results.test(words.headline, arm)) is not None]
    if not tests:
        return []
    clear = [test for test in tests if test.p_holm < SIGNIFICANT]
    sentences = [
        f"{len(clear)} of {len(tests)} arms differ from {results.reference} beyond chance (p < {SIGNIFICANT}, adjusted "
        f"for {len(results.arms) - 1} tests)."
    ]
    for word, sign in (("more", 1), ("less", -1)):
        if names := [test.first for test in clear if test.comparison.difference.mean * sign > 0]:
            sentences.append(f"{words.differs.format(word)} with {_listed(names)}.")
    return sentences


def _listed(names: list[str]) -> str:
    """Names in a sentence; of many the first few."""
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
