"""Figures of a run."""

import io
import math
import textwrap
from pathlib import Path
from typing import Any

from agents.arguments import expect_path
from agents.log.chain import write_atomic
from agents.plots.lettering import print_figure
from agents.simulation.progress import Curve, GoalProgress, Progress, read_progress
from steer.files import read_plain

# Okabe and Ito's blue and vermillion: told apart with any colour vision, and by their lines in print.
GUIDED, UNGUIDED = "#0072B2", "#D55E00"
FILE_NAME = "progress.png"


def plot_progress(run: Path) -> Path:
    """Draw how near each goal came, turn by turn: one panel per goal, guided solid, unguided dashed.

    A dotted line is the threshold, a circle the turn in which the goal was reached (for one to avoid: came up), a thin
    vertical line its deadline.

    Returns:
        The file `progress.png` in the run's folder.

    Raises:
        RunNotFound: there is no run, or nothing was written yet.
        RunDamaged: its logs were changed.
        RunWriteError: the file cannot be written.
    """
    run = expect_path(run, "run")
    path = run / FILE_NAME
    write_atomic(path, _image(run))
    return path


def figure_problem(run: Path) -> str | None:
    """What is wrong with the figure in a run's folder, compared with one that is drawn anew; None if nothing is.

    Raises:
        RunNotFound, RunDamaged: see `plot_progress`.
    """
    try:
        found = read_plain(run / FILE_NAME)
    except OSError as error:
        return f"{FILE_NAME} cannot be read: {error.strerror}"
    if found == _image(run):
        return None
    return f"{FILE_NAME} is not what the logs give with this matplotlib; draw it again: steer plot {run}"


def _image(run: Path) -> bytes:
    """The figure as PNG; the same logs, fonts and matplotlib give the same bytes."""
    # The backend is taken by its class: nothing global is set, and no display is needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    progress = read_progress(run)
    columns = min(2, max(1, len(progress.goals)))
    rows = max(1, math.ceil(len(progress.goals) / columns))
    figure = Figure(figsize=(5.2 * columns, 2.9 * rows + 0.7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, goal in zip(axes, progress.goals, strict=False):
        _panel(axis, goal, progress)
    for axis in axes[len(progress.goals) :]:
        axis.set_axis_off()
    figure.suptitle(progress.title)
    if progress.goals:
        # One legend for all panels: not every goal has a deadline before the end.
        entries = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        options = {"loc": "outside lower center", "ncols": len(entries), "frameon": False, "fontsize": 9}
        figure.legend(list(entries.values()), list(entries), **options)
    image = io.BytesIO()
    print_figure(canvas, image, format="png", dpi=130)
    return image.getvalue()


def _panel(axis: Any, goal: GoalProgress, progress: Progress) -> None:
    from matplotlib.ticker import MaxNLocator

    if goal.unguided is not None:
        _line(axis, goal.unguided, UNGUIDED, "--", "unguided")
    _line(axis, goal.guided, GUIDED, "-", "guided")
    axis.axhline(progress.threshold, color="0.35", linestyle=":", linewidth=1.2, label="threshold")
    if goal.by_turn < progress.turns:
        axis.axvline(goal.by_turn, color="0.75", linewidth=0.8, label="deadline")
    values = [s for c in (goal.guided, goal.unguided) if c for s in c.values if s is not None]
    axis.set_ylim(min([0.0, *values]) - 0.05, 1.05)
    axis.set_xlim(0.5, progress.turns + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axis.set_xlabel("turn", fontsize=9)
    axis.set_ylabel("chance that it was told" if progress.told else "similarity", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="0.92", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    verb = "wants" if goal.kind == "terminal" else "avoids"
    title = "\n".join(textwrap.wrap(f"{goal.name} {verb}: {goal.text}", 58, max_lines=2, placeholder=" ..."))
    axis.set_title(title, fontsize=9, loc="left")


def _line(axis: Any, curve: Curve, colour: str, style: str, label: str) -> None:
    turns = range(1, len(curve.values) + 1)
    heights = [math.nan if value is None else value for value in curve.values]
    axis.plot(turns, heights, color=colour, linestyle=style, linewidth=1.8, marker=".", markersize=5, label=label)
    if curve.reached is not None:
        height = heights[curve.reached - 1]
        axis.plot([curve.reached], [height], "o", color=colour, markersize=9, fillstyle="none", markeredgewidth=2)
        axis.annotate(
            f"turn {curve.reached}",
            (curve.reached, height),
            (0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
