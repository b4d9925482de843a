"""The examples run, and show what they promise."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from steer.models.build import fresh_model
from steer.models.checkpoint import save

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load_main(path: str) -> Callable[[list[str]], None]:
    """`main` of an example, which is a script and no package."""
    spec = importlib.util.spec_from_file_location(f"example_{Path(path).stem}", EXAMPLES / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def tiny_model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an untrained model whose spans of 64 bytes hold the examples' goals."""
    model = fresh_model(tiny_llama, span_tokens=64, z_dim=8, soft_tokens=1, rank=4, alpha=4, max_context=128)
    folder = tmp_path_factory.mktemp("examples") / "model"
    save(model, folder, with_base=True)
    return str(folder)


def test_every_example_is_run_here() -> None:
    scripts = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    tested = {"quickstart.py", "compare_guidance.py", "goal_story.py", "search_or_guidance.py", "own_scenario/run.py"}
    assert scripts == tested


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebook_runs_and_shows_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells run in order on the packaged model; what they print is what is stored, but for figures of time."""
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    space: dict[str, object] = {}
    printed = 0
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        assert cell["execution_count"] == number + 1
        exec(compile("".join(cell["source"]), f"cell {number + 1}", "exec"), space)
        stored = "".join(line for output in cell["outputs"] for line in output.get("text", ()))
        shown = capsys.readouterr().out
        assert bool(shown) == bool(stored)
        printed += len(shown.splitlines()) == len(stored.splitlines())
    assert printed >= number  # one cell may differ where another machine writes another text


def test_quickstart(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    load_main("quickstart.py")(["--model", tiny_model])
    out = capsys.readouterr().out
    assert "Latents of width 8" in out
    for line in ("   0.00  ", "   0.50  ", "   1.00  ", "   unguided: ", "   steered: "):
        assert line in out


def test_compare_guidance(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    load_main("compare_guidance.py")(["--model", tiny_model, "--spans", "2", "--goal", "Tom found a box."])
    out = capsys.readouterr().out
    assert "Tom found a box." in out
    for arm in ("unguided", "fixed", "annealed"):
        assert f"│ {arm} " in out


def test_goal_story(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    load_main("goal_story.py")(["--model", tiny_model, "--spans", "2", "--budget", "4", "--goal", "Tom found a box."])
    out = capsys.readouterr().out
    for start in ("Goal: Tom found a box.", "Unguided: ", "Guided: ", "Searched, "):
        assert f"\n{start}" in out


def test_search_or_guidance_runs_and_goes_on(
    tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", tiny_model, "--pairs", "2", "--spans", "2", "--out", str(tmp_path / "run")]
    load_main("search_or_guidance.py")(arguments)
    first = capsys.readouterr().out
    assert "# Search, guidance, and both" in first and (tmp_path / "run" / "report.html").is_file()
    for arm in ("unguided", "search", "guidance", "both"):
        assert f"| {arm} |" in first
    load_main("search_or_guidance.py")(arguments)
    assert capsys.readouterr().out == first


def test_own_scenario_runs_and_goes_on(tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", tiny_model, "--out", str(tmp_path / "run"), "--turns", "2"]
    load_main("own_scenario/run.py")(arguments)
    first = capsys.readouterr().out
    assert "# By the lake" in first
    assert "Ben wants: Ben sat in a small boat and sailed away." in first
    assert "ok     guided: context: every context is the opening and what was written" in first
    assert "FAILED" not in first
    assert (tmp_path / "run" / "progress.png").is_file()
    load_main("own_scenario/run.py")(arguments)
    assert capsys.readouterr().out == first
