"""Figures of search trees."""

import io
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import RunWriteError
from agents.log.chain import write_atomic
from agents.plots.lettering import print_figure
from steer.search.export import ToText, by_value, chosen, nodes_of, words_of
from steer.search.tree import NONE, Status, Tree

MOST_NODES = 2000  # more cannot be told apart on a page
FORMATS = (".png", ".pdf", ".svg")
CAPTION = 118  # characters to a line below the drawing
PALE = 0.3  # share of its own colour that a pruned node keeps
LEGEND: dict[str, Any] = {
    "ncols": 6,
    "frameon": False,
    "fontsize": 8,
    "borderaxespad": 0,
    "handletextpad": 0.4,
    "columnspacing": 1.2,
}


def plot_tree(tree: Tree, out: Path, *, root: int = 0, to_text: ToText | None = None) -> Path:
    """Draw one root of a search tree, from left to right, a column per depth in spans.

    Colours are the nodes' values. Circles are open nodes and squares complete ones, pruned nodes are pale, duplicates
    small, committed nodes ringed; the path to the chosen node is drawn thick and told below. Siblings stand in the
    order of their values, the best on top. A tree of more than 2,000 nodes keeps the best children of each node and
    the chosen path, and says so.

    Args:
        tree: with at least one span below the root or none.
        out: a `.png`, `.pdf` or `.svg`; replaced if it is there.
        root: number of the root, counted from 0.
        to_text: makes a string of token ids; without it, the path is told in token ids.

    Returns:
        `out`.

    Raises:
        SearchError: there is no root of that number.
        RunWriteError: the file is of another kind, or cannot be written.
    """
    # The backend is taken by its class: nothing global is set, and no display is needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = Path(out)
    if out.suffix.lower() not in FORMATS:
        raise RunWriteError(f"cannot draw {out}: expected a name that ends in {', '.join(FORMATS)}")
    every = nodes_of(tree, root)
    head = every[0]
    path = [head, *tree.path(chosen(tree, head))]
    children, best_of = _children(tree, head, set(path), len(every))
    heights = _heights(head, children)
    rows = max(heights.values()) + 1
    caption = _caption(tree, path, to_text, "" if best_of is None else _note(heights, every, best_of))
    # In inches, from below: what is written around the drawing has one size whatever the tree's.
    foot, tall = 0.95 + 0.16 * (caption.count("\n") + 1), min(10.0, max(2.6, 0.16 * rows))
    wide, high = 9.5, foot + tall + 0.35
    figure = Figure(figsize=(wide, high))
    canvas = FigureCanvasAgg(figure)
    axis = figure.add_axes((0.25 / wide, foot / high, (wide - 1.25) / wide, tall / high))
    _edges(axis, tree, heights, children, path)
    scale = _nodes(axis, tree, heights, path)
    if scale is not None:
        bar = figure.colorbar(scale, cax=figure.add_axes(((wide - 0.9) / wide, foot / high, 0.12 / wide, tall / high)))
        bar.set_label("value", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)  # type: ignore[operator]  # a patch, whatever the stubs say
    _frame(axis, tree, heights, head)
    axis.legend(handles=_legend(), loc="upper left", bbox_to_anchor=(0, -0.55 / tall), **LEGEND)
    found = f"chosen value {float(tree.value[path[-1]]):.3f}" if len(path) > 1 else "nothing written yet"
    title = f"{len(every) - 1:,} {'node' if len(every) == 2 else 'nodes'}, {found}"
    axis.set_title(f"root {root}: {title}" if len(tree.roots) > 1 else title, fontsize=10, loc="left")
    figure.text(0.03, 0.12 / high, caption, fontsize=8, va="bottom", linespacing=1.3)
    image = io.BytesIO()
    print_figure(canvas, image, format=out.suffix[1:].lower(), dpi=160)
    write_atomic(out, image.getvalue())
    return out


def _children(tree: Tree, head: int, keep: set[int], size: int) -> tuple[dict[int, list[int]], int | None]:
    """The children to draw of each node to draw, and how many of the best were kept where some are left out."""
    ordered: dict[int, list[int]] = {}

    def kept(most: float) -> dict[int, list[int]]:
        found, waiting = {}, [head]
        while waiting:
            node = waiting.pop()
            if node not in ordered:
                ordered[node] = by_value(tree, node)
            found[node] = [child for i, child in enumerate(ordered[node]) if i < most or child in keep]
            waiting += found[node]
        return found

    if size <= MOST_NODES:
        return kept(math.inf), None
    low, high = 1, size
    while low < high:  # the greatest number that leaves few enough, by bisection
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(kept(middle)) <= MOST_NODES else (low, middle - 1)
    return kept(low), low


def _heights(head: int, children: dict[int, list[int]]) -> dict[int, float]:
    """Rows from the top: leaves one below the other, a parent between its first and last child (tidy tree)."""
    order, waiting = [], [head]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting += reversed(children[node])
    heights: dict[int, float] = {}
    leaves = 0
    for node in order:
        if not children[node]:
            heights[node] = leaves
            leaves += 1
    for node in reversed(order):
        if children[node]:
            heights[node] = (heights[children[node][0]] + heights[children[node][-1]]) / 2
    return heights


def _edges(axis: Any, tree: Tree, heights: dict[int, float], children: dict[int, list[int]], path: list[int]) -> None:
    from matplotlib.collections import LineCollection

    thick = set(path)
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for node, found in children.items():
        for child in found:
            if child not in thick:
                ends = [(int(tree.depth[n]), heights[n]) for n in (node, child)]
                groups[tree.has(child, Status.PRUNED)].append(ends)
    width = float(np.clip(150 / len(heights), 0.2, 0.8))
    axis.add_collection(LineCollection(groups[True], colors="0.88", linewidths=width, zorder=1))
    axis.add_collection(LineCollection(groups[False], colors="0.65", linewidths=width, zorder=2))
    axis.plot([int(tree.depth[n]) for n in path], [heights[n] for n in path], color="black", linewidth=2.6, zorder=3)


def _nodes(axis: Any, tree: Tree, heights: dict[int, float], path: list[int]) -> Any:
    """Draw the nodes; returns what the colour bar is made of, or None where there is none but the root."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axis.scatter(0, heights[path[0]], s=60, marker="D", color="black", zorder=6)
    nodes = np.array([node for node in heights if tree.parent[node] != NONE], dtype=np.int64)
    values = tree.value[nodes].astype(np.float64)
    known = values[np.isfinite(values)]
    if not len(known):
        known = np.zeros(1)
    spread = max(float(known.max() - known.min()), 1e-6)
    scale = ScalarMappable(Normalize(float(known.min()), float(known.min()) + spread), colormaps["viridis"])
    status = tree.status[nodes]
    pruned, complete, committed, duplicate = (
        status & bit != 0 for bit in (Status.PRUNED, Status.COMPLETE, Status.COMMITTED, Status.DUPLICATE)
    )
    colours = np.where(np.isfinite(values)[:, None], scale.to_rgba(values)[:, :3], 0.6)
    # Mixed with white instead of see-through: no line shines through a node.
    colours = np.where(pruned[:, None], PALE * colours + 1 - PALE, colours)
    sizes = float(np.clip(9000 / len(heights), 4, 70)) * np.where(duplicate, 0.3, 1.0)
    sizes *= np.where(np.isin(nodes, path), 1.6, 1.0)
    spots = np.array([(tree.depth[node], heights[node]) for node in nodes], dtype=np.float64).reshape(-1, 2)
    for marker, rows in (("o", ~complete), ("s", complete)):
        axis.scatter(
            *spots[rows].T,
            c=colours[rows],
            s=sizes[rows],
            marker=marker,
            edgecolors=np.where(committed[rows, None], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]),
            linewidths=0.9,
            zorder=5,
        )
    return scale if len(nodes) else None


def _frame(axis: Any, tree: Tree, heights: dict[int, float], head: int) -> None:
    from matplotlib.ticker import MaxNLocator

    deepest = max(int(tree.depth[node]) for node in heights)
    rows = max(heights.values())
    axis.set_xlim(-0.15, max(deepest, min(tree.horizon(head), deepest + 1)) + 0.15)
    axis.set_ylim(rows + max(0.6, rows * 0.02), -max(0.6, rows * 0.02))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("depth (spans)", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"linestyle": "none", "color": "#31688e", "markersize": 6}
    return [
        Line2D([], [], marker="o", label="open", **dot),
        Line2D([], [], marker="s", label="complete", **dot),
        Line2D([], [], marker="o", label="committed", markeredgecolor="black", **dot),
        Line2D([], [], marker="o", label="pruned", **{**dot, "color": "#c1d1dd"}),
        Line2D([], [], marker="o", label="duplicate", **{**dot, "markersize": 3}),
        Line2D([], [], color="black", linewidth=2.6, label="chosen path"),
    ]


def _note(heights: dict[int, float], every: list[int], best_of: int) -> str:
    many = "child" if best_of == 1 else f"{best_of} children"
    return f"Drawn: {len(heights) - 1:,} of {len(every) - 1:,} nodes, the best {many} of each and the chosen path."


def _caption(tree: Tree, path: list[int], to_text: ToText | None, note: str) -> str:
    """The chosen path's spans, one line each; of a long path the first and the last ones."""
    lines = [f"{tree.depth[node]}  {words_of(tree, node, to_text, CAPTION)}" for node in path]
    if len(lines) > 10:
        lines = [*lines[:5], "...", *lines[-4:]]
    return "\n".join([*(textwrap.wrap(note, CAPTION) if note else []), *lines])
