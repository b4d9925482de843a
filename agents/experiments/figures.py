"""Figures of results: success against budget, and success against fluency; as files, and as parts of a page."""

from pathlib import Path
from typing import Any

from agents.experiments.drawing import Drawings, Style, as_pngs, canvas, error_bars, legend, styles_of
from agents.experiments.folder import write_files
from agents.experiments.results import HEADLINE, Results

BY_BUDGET, FRONTIER = "success_by_budget.png", "frontier.png"


def save_figures(results: Results, folder: Path) -> list[Path]:
    """Draw what the results allow: nothing without a judge, and nothing by budget where no arm has one.

    Returns:
        The files.

    Raises:
        RunWriteError: a file cannot be written.
    """
    return write_files(folder, as_pngs(draw_results(results)))


def draw_results(results: Results) -> Drawings:
    """What can be drawn, by file name: nothing without a judge, and nothing by budget where no arm has one."""
    if not results.judged:
        return {}
    found = {FRONTIER: lambda: _drawn(results, _draw_frontier)}
    if any(arm.budget is not None for arm in results.arms):
        found[BY_BUDGET] = lambda: _drawn(results, _draw_by_budget)
    return found


def _draw_by_budget(axis: Any, results: Results, styles: dict[str, Style]) -> None:
    """One line per policy with error bars, and a band across for each arm without a budget."""
    from matplotlib.ticker import FixedLocator, NullLocator

    budgets = sorted({arm.budget for arm in results.arms if arm.budget is not None})
    axis.set_xscale("log")
    left, right = budgets[0] / 1.6, budgets[-1] * 1.6
    searched = [name for name in styles if any(a.arm == name and a.budget is not None for a in results.arms)]
    for arm in results.arms:
        if arm.budget is None:
            colour, _, line = styles[arm.arm]
            value = arm.measures[HEADLINE]
            axis.axhspan(value.low, value.high, color=colour, alpha=0.12, linewidth=0)
            axis.axhline(value.mean, color=colour, linestyle=line, linewidth=1.4, label=_label(results, arm.arm))
    for index, name in enumerate(searched):
        arms = sorted((a for a in results.arms if a.arm == name and a.budget is not None), key=lambda a: a.budget or 0)
        # A small step aside, or the bars of several policies would cover each other.
        aside = 1.05 ** (index - (len(searched) - 1) / 2)
        places = [(arm.budget or 0) * aside for arm in arms]
        values = [arm.measures[HEADLINE] for arm in arms]
        colour, marker, line = styles[name]
        options = {
            "color": colour,
            "marker": marker,
            "linestyle": line,
            "label": _label(results, name),
            "capsize": 3,
            "elinewidth": 0.9,
        }
        axis.errorbar(places, [v.mean for v in values], yerr=error_bars(values), linewidth=1.8, markersize=6, **options)
    axis.set_xlim(left, right)
    axis.xaxis.set_major_locator(FixedLocator(budgets))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([f"×{budget:g}" for budget in budgets])
    axis.set_xlabel("tokens generated per text, in multiples of its length (log scale)")


def _draw_frontier(axis: Any, results: Results, styles: dict[str, Style]) -> None:
    """Success against fluency, with error bars both ways; the budgets of one policy are joined."""
    for name, (colour, marker, line) in styles.items():
        arms = sorted((arm for arm in results.arms if arm.arm == name), key=lambda arm: arm.budget or 0)
        across, up = [arm.measures["base_nll"] for arm in arms], [arm.measures[HEADLINE] for arm in arms]
        places = [v.mean for v in across], [v.mean for v in up]
        options = {
            "color": colour,
            "marker": marker,
            "linestyle": line if len(arms) > 1 else "none",
            "label": _label(results, name),
        }
        bars = {"xerr": error_bars(across), "yerr": error_bars(up), "elinewidth": 0.9, "capsize": 2}
        axis.errorbar(*places, linewidth=1.4, markersize=7, **options, **bars)
        for arm, x, y in zip(arms, *places, strict=True):
            if arm.budget is not None:
                offset = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8, "color": colour}
                axis.annotate(f"×{arm.budget:g}", (x, y), **offset)
    axis.set_xlabel("NLL under the unsteered base, nats per token (left is more fluent)")


def _drawn(results: Results, draw: Any) -> Any:
    """A canvas with one of the figures on it."""
    from matplotlib.ticker import PercentFormatter

    drawn, (axis,) = canvas(results.title or results.id)
    draw(axis, results, styles_of(arm.arm for arm in results.arms))
    axis.set_ylim(-0.02, max(0.2, *(min(1.02, arm.measures[HEADLINE].high + 0.05) for arm in results.arms)))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ylabel(f"right terminal nearest of {results.group}")
    legend(drawn, axis)
    return drawn


def _label(results: Results, name: str) -> str:
    """Name of an arm, marked where its goal stood in the visible text."""
    told = any(arm.diegetic for arm in results.arms if arm.arm == name)
    return f"{name} (goal told)" if told else name
