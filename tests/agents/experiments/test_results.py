"""Results survive the disk, and `steer plot` draws a run from them."""

import math
from pathlib import Path

import pytest

from agents.errors import RunDamaged
from agents.experiments.kind import ArmInfo
from agents.experiments.results import Results
from agents.experiments.results import TestedPair as PairTest  # pytest would take the name for a test
from agents.experiments.statistics import Comparison, Estimate
from tests.agents.cli.kit import steer
from tests.agents.experiments.kit import made_results


def results() -> Results:
    rows = [
        (ArmInfo(name, family, method, budget), {"nearest": Estimate(share, 0.0, 1.0, 8), "base_nll": nll})
        for name, family, method, budget, share, nll in (
            ("unguided", "unguided", "unguided", None, 0.125, Estimate(1.2, 1.1, 1.3, 8)),
            ("bon x1", "bon", "search", 1.0, 0.25, Estimate(1.3, 1.1, 1.4, 8)),
            ("bon x4", "bon", "search", 4.0, 0.5, Estimate(math.nan, math.nan, math.nan, 0)),
        )
    ]
    test = Comparison(Estimate(0.375, 0.1, 0.6, 8), 0.25, "McNemar, exact", math.nan, "h")
    courses = {"unguided": (0.5, math.nan)}
    return made_results(rows, tests=(PairTest("nearest", "bon x4", "unguided", test, 0.5),), courses=courses)


def test_results_survive_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(results().to_json(), encoding="utf-8")
    assert repr(Results.load(path)) == repr(results())  # repr, since NaN equals nothing


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arms": 1}', "\udcff"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunDamaged, match="steer experiment"):
        Results.load(path)
    with pytest.raises(RunDamaged, match="no results"):
        Results.load(tmp_path / "none.json")


def test_plot_draws_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text("{}", encoding="utf-8")
    assert steer("plot", str(tmp_path)).exit_code == 1
    (tmp_path / "results.json").write_text(results().to_json(), encoding="utf-8")
    done = steer("plot", str(tmp_path))
    assert done.exit_code == 0
    drawn = [Path(line) for line in done.stdout.split()]
    assert {path.name for path in drawn} == {"success_by_budget.png", "frontier.png", "nearness.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert steer("plot", str(tmp_path), "--root", "1").exit_code == 2
