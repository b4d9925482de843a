"""Figures of results: success by budget, success against fluency, who gets their way, and how goals come nearer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agents.experiments.drawing import Drawings, as_pngs, canvas, error_bars, legend, styles_of
from agents.experiments.folder import RESULTS, write_files
from agents.experiments.kind import ArmInfo
from agents.experiments.results import ALL, Results
from agents.experiments.statistics import Estimate
from agents.experiments.tables import captions_of

BY_BUDGET, FRONTIER = "success_by_budget.png", "frontier.png"
BY_ROLE, COURSE = "told_by_role.png", "nearness.png"
INTERVALS = "Bars are 95 % intervals."
CAPTIONS = {
    FRONTIER: "Success against fluency: up is {success}, left is more fluent text. " + INTERVALS,
    BY_BUDGET: "Success by budget: what more generated tokens buy. Bands are arms without a budget. " + INTERVALS,
    BY_ROLE: "Who gets their way: how often the goals of each character were told. " + INTERVALS,
    COURSE: "How near the goals came in the course of a run; means over all goals.",
}


def plot_results(folder: Path) -> list[Path]:
    """Draw the results of a finished run into its folder.

    Returns:
        The files.

    Raises:
        RunDamaged: it holds no results.
        RunWriteError: a file cannot be written.
    """
    return write_files(folder, draw(Results.load(folder / RESULTS)))


def draw(results: Results) -> dict[str, bytes]:
    """What the results allow, as PNG files by name."""
    return as_pngs(drawings(results))


def drawings(results: Results) -> Drawings:
    """What can be drawn, by file name: nothing without a judge."""
    if not results.judged:
        return {}
    found: dict[str, Callable[[], Any]] = {}
    if results.whole():
        found[FRONTIER] = lambda: _drawn(results, _draw_frontier)
    if any(arm.budget is not None for arm in results.arms):
        found[BY_BUDGET] = lambda: _drawn(results, _draw_by_budget)
    if any(row.role for row in results.rows):
        found[BY_ROLE] = lambda: _draw_by_role(results)
    if any(np.isfinite(course).any() for course in results.courses.values()):
        found[COURSE] = lambda: _draw_course(results)
    return found


def caption(results: Results, name: str) -> str:
    """What a figure shows, in a sentence or two."""
    return CAPTIONS[name].format(success=captions_of(results).success)


def _draw_by_budget(axis: Any, results: Results) -> None:
    """One line per policy with error bars, and a band across for each arm without a budget."""
    from matplotlib.ticker import FixedLocator, NullLocator

    headline, families = captions_of(results).headline, _families(results)
    styles = styles_of(families)
    budgets = sorted({arm.budget for arm in results.arms if arm.budget is not None})
    axis.set_xscale("log")
    for family, arms in families.items():
        if arms[0].budget is None:
            colour, _, line = styles[family]
            (value,) = _values(results, arms, headline)
            axis.axhspan(value.low, value.high, color=colour, alpha=0.12, linewidth=0)
            axis.axhline(value.mean, color=colour, linestyle=line, linewidth=1.4, label=_label(arms))
    searched = {family: arms for family, arms in families.items() if arms[0].budget is not None}
    for index, (family, arms) in enumerate(searched.items()):
        # A small step aside, or the bars of several policies would cover each other.
        aside = 1.05 ** (index - (len(searched) - 1) / 2)
        places, values = [(arm.budget or 0) * aside for arm in arms], _values(results, arms, headline)
        colour, marker, line = styles[family]
        options = {"color": colour, "marker": marker, "linestyle": line, "label": _label(arms)}
        bars = {"yerr": error_bars(values), "capsize": 3, "elinewidth": 0.9}
        axis.errorbar(places, [v.mean for v in values], linewidth=1.8, markersize=6, **options, **bars)
    axis.set_xlim(budgets[0] / 1.6, budgets[-1] * 1.6)
    axis.xaxis.set_major_locator(FixedLocator(budgets))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([f"×{budget:g}" for budget in budgets])
    axis.set_xlabel("tokens generated per text, in multiples of its length (log scale)")


def _draw_frontier(axis: Any, results: Results) -> None:
    """Success against fluency, with error bars both ways; the budgets of one policy are joined."""
    families = _families(results)
    for family, (colour, marker, line) in styles_of(families).items():
        arms = families[family]
        across, up = (_values(results, arms, name) for name in ("base_nll", captions_of(results).headline))
        places = [v.mean for v in across], [v.mean for v in up]
        style = {"color": colour, "marker": marker, "linestyle": line if len(arms) > 1 else "none"}
        bars = {"xerr": error_bars(across), "yerr": error_bars(up), "elinewidth": 0.9, "capsize": 2}
        axis.errorbar(*places, linewidth=1.4, markersize=7, label=_label(arms), **style, **bars)
        for arm, x, y in zip(arms, *places, strict=True):
            if arm.budget is not None:
                offset = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8, "color": colour}
                axis.annotate(f"×{arm.budget:g}", (x, y), **offset)
    axis.set_xlabel("NLL under the unsteered base, nats per token (left is more fluent)")


def _draw_by_role(results: Results) -> Any:
    """How often goals were told, by the place of their character: a panel for each relation, a mark for each arm."""
    from matplotlib.ticker import FixedLocator, PercentFormatter

    groups, headline = results.groups() or [ALL], captions_of(results).headline
    styles = styles_of(arm.name for arm in results.arms)
    drawn, axes = canvas(results.name, panels=len(groups))
    labels: dict[str, Any] = {}
    for axis, group in zip(axes, groups, strict=True):
        roles = results.roles(group)
        arms = [arm for arm in styles if results.row(arm, group) is not None]
        for index, arm in enumerate(arms):
            there = [
                (x, row.measures[headline]) for x, role in enumerate(roles) if (row := results.row(arm, group, role))
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


def _draw_course(results: Results) -> Any:
    """The nearest that the goals came up to each part of a run, means over all goals; a line for each arm."""
    from matplotlib.ticker import PercentFormatter

    drawn, (axis,) = canvas(results.name)
    styles = styles_of(arm.name for arm in results.arms)
    for arm, course in results.courses.items():
        colour, marker, line = styles[arm]
        places = (np.arange(len(course)) + 1) / len(course)
        options = {"color": colour, "marker": marker, "linestyle": line, "label": arm}
        axis.plot(places, course, linewidth=1.8, markersize=5, **options)
    if np.isfinite(threshold := results.facts.get("threshold", np.nan)):
        axis.axhline(threshold, color="#000000", linewidth=0.9, linestyle=":", label="counts as told")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_xlabel("part of the run")
    axis.set_ylabel("nearest so far to a goal: cosine, by the judge")
    legend(drawn, axis)
    return drawn


def _drawn(results: Results, draw_on: Callable[[Any, Results], None]) -> Any:
    """A canvas with one of the figures of success on it."""
    from matplotlib.ticker import PercentFormatter

    drawn, (axis,) = canvas(results.name)
    draw_on(axis, results)
    words = captions_of(results)
    highs = [row.measures[words.headline].high for row in results.whole()]
    axis.set_ylim(-0.02, max(0.2, *(min(1.02, high + 0.05) for high in highs)))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ylabel(words.axis.format(**results.facts))
    legend(drawn, axis)
    return drawn


def _families(results: Results) -> dict[str, list[ArmInfo]]:
    """Arms that were written for all items, by family, the smallest budget first."""
    found: dict[str, list[ArmInfo]] = {}
    for arm in sorted(results.arms, key=lambda arm: arm.budget or 0):
        if results.row(arm.name) is not None:
            found.setdefault(arm.family, []).append(arm)
    return {arm.family: found[arm.family] for arm in results.arms if arm.family in found}


def _values(results: Results, arms: list[ArmInfo], measure: str) -> list[Estimate]:
    return [row.measures[measure] for arm in arms if (row := results.row(arm.name)) is not None]


def _label(arms: list[ArmInfo]) -> str:
    """Name of a family, marked where its goal stood in the visible text."""
    return f"{arms[0].family} (goal told)" if any(arm.diegetic for arm in arms) else arms[0].family
