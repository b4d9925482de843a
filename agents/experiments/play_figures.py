"""Figures of an experiment over scenarios: who gets their way, and how the goals come nearer in the course of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.experiments.drawing import Drawings, canvas, error_bars, legend, styles_of
from agents.experiments.play_results import ALL, PlayResults
from agents.experiments.play_spec import ROLES

BY_ROLE, COURSE = "told_by_role.png", "nearness.png"
Courses = Mapping[str, NDArray[np.float64]]


def draw_plays(results: PlayResults, courses: Courses) -> Drawings:
    """What can be drawn, by file name; nothing without a judge.

    Args:
        results: of the run.
        courses: see `agents.experiments.play_report_content.PlayReport`.
    """
    if not results.judged:
        return {}
    found = {BY_ROLE: lambda: _by_role(results)}
    if any(np.isfinite(course).any() for course in courses.values()):
        found[COURSE] = lambda: _course(results, courses)
    return found


def _by_role(results: PlayResults) -> Any:
    """How often goals were told, by the place of their character: a panel for each relation, a mark for each arm."""
    from matplotlib.ticker import FixedLocator, PercentFormatter

    groups = results.relations() or [ALL]
    styles = styles_of(results.arms())
    drawn, axes = canvas(results.title or results.id, panels=len(groups))
    labels: dict[str, Any] = {}
    for axis, group in zip(axes, groups, strict=True):
        roles = [role for role in ROLES if any(r.role == role and r.relation == group for r in results.rows)]
        arms = [arm for arm in styles if results.row(arm, group) is not None]
        for index, arm in enumerate(arms):
            there = [
                (x, row.measures["told"]) for x, role in enumerate(roles) if (row := results.row(arm, group, role))
            ]
            colour, marker, _ = styles[arm]
            # Side by side, or the bars of several arms would cover each other.
            places = [x + 0.6 * ((index + 0.5) / len(arms) - 0.5) for x, _ in there]
            values = [value for _, value in there]
            options = {"color": colour, "marker": marker, "linestyle": "none", "capsize": 2, "elinewidth": 0.9}
            bars = axis.errorbar(places, [v.mean for v in values], yerr=error_bars(values), markersize=6, **options)
            labels.setdefault(arm, bars)
        axis.xaxis.set_major_locator(FixedLocator(range(len(roles))))
        axis.set_xticklabels(roles)
        axis.set_xlim(-0.5, len(roles) - 0.5)
        axis.set_xlabel("goals of each character" if group == ALL else group)
        axis.set_ylim(-0.03, 1.03)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].set_ylabel("goals told")
    drawn.figure.legend(labels.values(), labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return drawn


def _course(results: PlayResults, courses: Courses) -> Any:
    """The nearest that the goals came up to each part of a run, means over all goals; a line for each arm."""
    from matplotlib.ticker import PercentFormatter

    drawn, (axis,) = canvas(results.title or results.id)
    styles = styles_of(results.arms())
    for arm, course in courses.items():
        colour, marker, line = styles[arm]
        places = (np.arange(len(course)) + 1) / len(course)
        options = {"color": colour, "marker": marker, "linestyle": line, "label": arm}
        axis.plot(places, course, linewidth=1.8, markersize=5, **options)
    if np.isfinite(results.threshold):
        axis.axhline(results.threshold, color="#000000", linewidth=0.9, linestyle=":", label="counts as told")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_xlabel("part of the run")
    axis.set_ylabel("nearest so far to a goal: cosine, by the judge")
    legend(drawn, axis)
    return drawn
