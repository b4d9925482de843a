"""What all figures of experiments share: colours, an empty canvas, and writing it as a file or into a page."""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.experiments.statistics import Estimate
from agents.plots.lettering import print_figure

# Okabe and Ito's colours without the yellow, which print loses: told apart with any colour vision. Markers and lines
# differ as well, for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":")
GRID = "#ebebeb"
Style = tuple[str, str, str]
Drawings = Mapping[str, Callable[[], Any]]  # what gives a canvas, by file name


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """Colour, marker and line of each name, the same in all figures."""
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def canvas(title: str, *, panels: int = 1) -> tuple[Any, list[Any]]:
    """An empty canvas with its axes side by side, which share their upright; grid lines across, no box.

    Nothing of matplotlib's global state is touched, and no display is needed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    for axis in axes:
        axis.set_facecolor("none")
        axis.grid(axis="y", color=GRID, linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_title(title, loc="left", fontsize=11)
    return FigureCanvasAgg(figure), axes


def legend(drawn: Any, axis: Any) -> None:
    """Names of what was drawn on one of the axes, beside the canvas."""
    handles, labels = axis.get_legend_handles_labels()
    drawn.figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)


def error_bars(values: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of error bars below and above; rounding must not make one negative."""
    return [[max(0.0, v.mean - v.low) for v in values], [max(0.0, v.high - v.mean) for v in values]]


def as_pngs(drawings: Drawings) -> dict[str, bytes]:
    """Figures as PNG files, by name."""
    return {name: _png(draw()) for name, draw in drawings.items()}


def as_svgs(drawings: Drawings) -> dict[str, str]:
    """Figures as `<svg>` elements of one page, by file name; the same drawings give the same text.

    What is black in them is the page's `currentColor`, their grid is `var(--rule)`, and no two share an id.
    """
    return {name: _svg(draw(), Path(name).stem) for name, draw in drawings.items()}


def _png(drawn: Any) -> bytes:
    image = io.BytesIO()
    print_figure(drawn, image, format="png", dpi=150)
    return image.getvalue()


def _svg(drawn: Any, prefix: str) -> str:
    image = io.StringIO()
    print_figure(drawn, image, format="svg", facecolor="none", metadata={"Date": None})
    whole = image.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", whole[whole.index("<svg") :], flags=re.DOTALL)
    svg = svg.replace("#000000", "currentColor").replace(GRID, "var(--rule)")
    svg = svg.replace("<svg ", '<svg fill="currentColor" aria-hidden="true" ', 1)
    numbers: dict[str, str] = {}
    return re.sub(
        r'(?<=id=")[^"]+|(?<=url\(#)[^)]+|(?<=href="#)[^"]+',
        lambda found: numbers.setdefault(found[0], f"{prefix}-{len(numbers)}"),
        svg,
    )
