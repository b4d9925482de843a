"""Pictures of search trees: the layout keeps its laws, and every tree can be drawn."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.errors import RunWriteError
from agents.plots import trees as tree_plots
from agents.plots.trees import plot_tree
from steer.errors import SearchError
from steer.search.export import by_value
from steer.search.tree import Status, Tree
from tests.steer.search.tree_kit import letters, small_tree, wide_tree

MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


def all_children(tree: Tree) -> dict[int, list[int]]:
    return {node: by_value(tree, node) for node in range(tree.size)}


@pytest.mark.parametrize("suffix", MAGIC)
def test_a_picture_of_each_kind(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"tree{suffix}"
    assert plot_tree(small_tree(), out, to_text=letters) == out
    assert out.read_bytes().startswith(MAGIC[suffix])
    assert list(tmp_path.iterdir()) == [out]
    assert "matplotlib.pyplot" not in sys.modules  # nothing global


def test_every_root_and_odd_trees_can_be_drawn(tmp_path: Path) -> None:
    plot_tree(small_tree(), tmp_path / "second.png", root=1)
    plot_tree(wide_tree(1, 0, horizon=1), tmp_path / "root alone.png")
    plot_tree(wide_tree(1, 30), tmp_path / "line.png")
    tree = small_tree()
    tree.value[2:] = np.nan
    tree.value[4], tree.value[6] = np.inf, -np.inf
    plot_tree(tree, tmp_path / "no value.png")
    pruned = wide_tree(2, 2)
    for node in range(1, pruned.size):
        pruned.mark(node, Status.PRUNED)
    plot_tree(pruned, tmp_path / "pruned.png")
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())


def test_characters_that_the_font_lacks_and_mathematics_are_no_error(tmp_path: Path) -> None:
    """Warnings are errors in these tests."""
    plot_tree(small_tree(), tmp_path / "a.png", to_text=lambda ids: "狐狸 \U0001f98a $x^2$ $\\frac \x00 \x1b[1m\nnext")


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no root 2"):
        plot_tree(small_tree(), tmp_path / "tree.png", root=2)
    with pytest.raises(RunWriteError, match=r"tree\.doc: expected a name that ends in \.png"):
        plot_tree(small_tree(), tmp_path / "tree.doc")
    with pytest.raises(RunWriteError, match="cannot write"):
        plot_tree(small_tree(), tmp_path / "none" / "tree.png")


# -- layout ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [small_tree(), wide_tree(3, 4), wide_tree(1, 5)], ids=["small", "wide", "line"])
def test_the_layout_is_tidy(tree: Tree) -> None:
    children = all_children(tree)
    heights = tree_plots._heights(0, children)
    drawn = set(np.flatnonzero(tree.root[: tree.size] == 0).tolist())
    assert set(heights) == drawn
    leaves = [node for node in drawn if not children[node]]
    assert sorted(heights[node] for node in leaves) == list(range(len(leaves)))
    for node in drawn - set(leaves):
        own = [heights[child] for child in children[node]]
        assert own == sorted(own)  # the best on top
        assert heights[node] == (own[0] + own[-1]) / 2
    for depth in range(int(tree.depth.max()) + 1):  # no two nodes on one spot
        column = [heights[node] for node in drawn if tree.depth[node] == depth]
        assert len(set(column)) == len(column)


def test_a_small_tree_is_drawn_whole() -> None:
    children, best_of = tree_plots._children(small_tree(), 0, {0}, 6)
    assert best_of is None and sorted(children) == [0, 2, 3, 4, 5, 6]


def test_a_big_tree_keeps_the_best_and_the_chosen_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tree = wide_tree(6, 4)  # 1,555 nodes
    worst = [0]
    while children := by_value(tree, worst[-1]):
        worst.append(children[-1])
    for most in (1000, 200, 40, 3):
        monkeypatch.setattr(tree_plots, "MOST_NODES", most)
        kept, best_of = tree_plots._children(tree, 0, set(worst), tree.size)
        assert best_of is not None and (len(kept) <= most or best_of == 1)
        assert set(worst) <= set(kept)
        for node, found in kept.items():
            order = by_value(tree, node)
            assert found == [c for i, c in enumerate(order) if i < best_of or c in worst]
        more = {0}  # one more of each would be too many
        for node in sorted(all_children(tree)):
            if node in more:
                more |= {c for i, c in enumerate(by_value(tree, node)) if i <= best_of or c in worst}
        assert len(more) > most
    monkeypatch.setattr(tree_plots, "MOST_NODES", 100)
    plot_tree(tree, tmp_path / "big.png")


def test_the_caption_tells_the_path_and_what_is_left_out() -> None:
    tree = small_tree()
    assert tree_plots._caption(tree, [0, 2, 4], letters, "") == "0  Once\n1  a w\n2  olf."
    long = wide_tree(1, 20)
    caption = tree_plots._caption(long, [0, *long.path(20)], None, "Drawn: some.")
    assert caption.splitlines()[0] == "Drawn: some." and caption.splitlines()[6] == "..."
    assert len(caption.splitlines()) == 11
    assert tree_plots._note({0: 0.0, 1: math.pi}, [0, 1, 2, 3], 1).startswith(
        "Drawn: 1 of 3 nodes, the best child of each"
    )
