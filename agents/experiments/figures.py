"""Figures of results: success against budget, and success against fluency; as files, and as parts of a page."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.experiments.results import HEADLINE, ArmResult, Results
from agents.experiments.statistics import Estimate
from agents.log import write_atomic

BY_BUDGET, FRONTIER = "success_by_budget.png", "frontier.png"
# Okabe and Ito's colours without the yellow, which print loses: told apart with any colour vision. Markers and lines
# differ as well, for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":")
GRID = "#ebebeb"
Style = tuple[str, str, str]


def save_figures(results: Results, folder: Path) -> list[Path]:
    """Draw what the results allow: nothing without a judge, and nothing by budget where no arm has one.

    Returns:
        The files.

    Raises:
        RunWriteError: a file cannot be written.
    """
    files = []
    for name, draw in _drawings(results).items():
        image = io.BytesIO()
        _canvas(results, draw).print_figure(image, format="png", dpi=150)
        write_atomic(folder / name, image.getvalue())
        files.append(folder / name)
    return files


def inline_figures(results: Results) -> dict[str, str]:
    """The same figures as `<svg>` elements, by file name. What is black in them is the page's `currentColor`.

    Their grid is `var(--rule)`, and no two figures on a page share an id. The same results give the same text.
    """
    found = {}
    for name, draw in _drawings(results).items():
        image = io.StringIO()
        _canvas(results, draw).print_figure(image, format="svg", facecolor="none", metadata={"Date": None})
        found[name] = _inline(image.getvalue(), Path(name).stem)
    return found


def _drawings(results: Results) -> dict[str, Any]:
    """What can be drawn, by file name: nothing without a judge, and nothing by budget where no arm has one."""
    if not results.judged:
        return {}
    by_budget = any(arm.budget is not None for arm in results.arms)
    return {FRONTIER: _draw_frontier} | ({BY_BUDGET: _draw_by_budget} if by_budget else {})


def _inline(svg: str, prefix: str) -> str:
    """A whole SVG file as an element of a page: without its head and metadata, in the page's colours, with own ids."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = svg.replace("#000000", "currentColor").replace(GRID, "var(--rule)")
    svg = svg.replace("<svg ", '<svg fill="currentColor" aria-hidden="true" ', 1)
    numbers: dict[str, str] = {}
    return re.sub(
        r'(?<=id=")[^"]+|(?<=url\(#)[^)]+|(?<=href="#)[^"]+',
        lambda found: numbers.setdefault(found[0], f"{prefix}-{len(numbers)}"),
        svg,
    )


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
        axis.errorbar(places, [v.mean for v in values], yerr=_bars(values), linewidth=1.8, markersize=6, **options)
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
        bars = {"xerr": _bars(across), "yerr": _bars(up), "elinewidth": 0.9, "capsize": 2}
        axis.errorbar(*places, linewidth=1.4, markersize=7, **options, **bars)
        for arm, x, y in zip(arms, *places, strict=True):
            if arm.budget is not None:
                offset = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8, "color": colour}
                axis.annotate(f"×{arm.budget:g}", (x, y), **offset)
    axis.set_xlabel("NLL under the unsteered base, nats per token (left is more fluent)")


def _canvas(results: Results, draw: Any) -> Any:
    # The backend is taken by its class: nothing global is set, and no display is needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_facecolor("none")
    draw(axis, results, _styles(results.arms))
    axis.set_ylim(-0.02, max(0.2, *(min(1.02, arm.measures[HEADLINE].high + 0.05) for arm in results.arms)))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ylabel(f"right terminal nearest of {results.group}")
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(results.title or results.id, loc="left", fontsize=11, parse_math=False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return canvas


def _styles(arms: Sequence[ArmResult]) -> dict[str, Style]:
    """Colour, marker and line of each arm, the same in all figures."""
    names = dict.fromkeys(arm.arm for arm in arms)
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, name in enumerate(names)
    }


def _bars(values: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of error bars below and above; rounding must not make one negative."""
    return [[max(0.0, v.mean - v.low) for v in values], [max(0.0, v.high - v.mean) for v in values]]


def _label(results: Results, name: str) -> str:
    """Name of an arm, marked where its goal stood in the visible text."""
    told = any(arm.diegetic for arm in results.arms if arm.arm == name)
    return f"{name} (goal told)" if told else name
