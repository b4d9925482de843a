"""`steer plot`: pictures of runs and of trees."""

from pathlib import Path

import pytest

from tests.agents.cli.kit import document, error_line, fake_module, steer


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_plot_trees(run: Path, tree: Path, tmp_path: Path) -> None:
    pictures = [run / "search" / name for name in ("a.png", "b.png")]
    result = steer("plot", run)
    assert (result.exit_code, result.stdout) == (0, "".join(f"{path}\n" for path in pictures))
    assert all(path.stat().st_size > 5000 for path in pictures)
    assert "root 0 of 2; --root N draws another" in result.stderr
    assert document(steer("plot", tree, "--root", 1, "--json")) == {"plots": [str(run / "search" / "a-root-1.png")]}
    assert steer("plot", tree, "--out", tmp_path / "tree.svg").stdout == f"{tmp_path / 'tree.svg'}\n"
    assert steer("plot", run, "--out", tmp_path / "tree.svg").exit_code == 2
    assert "expected a name that ends in" in error_line(steer("plot", tree, "--out", tmp_path / "tree.doc"))


def test_plot_a_simulation(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_module(monkeypatch, "agents.plots.progress", plot_progress=lambda folder: folder / "progress.png")
    (tmp_path / "tale").mkdir()
    for folder, count in ((tmp_path / "tale", 1), (run, 3)):  # without trees, and with two
        (folder / "manifest.json").touch()
        drawn = document(steer("plot", folder, "--json"))["plots"]
        assert drawn[0] == str(folder / "progress.png") and len(drawn) == count


def test_nothing_to_plot(tmp_path: Path) -> None:
    assert "no search tree at" in error_line(steer("plot", tmp_path / "none"))
    assert "no manifest.json of a simulation" in error_line(steer("plot", tmp_path))
