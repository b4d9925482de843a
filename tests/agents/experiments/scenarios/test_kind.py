"""Experiments over scenarios on a tiny model: safe to stop, to repeat and to share."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.errors import RunDamaged, RunExists, RunMismatch
from agents.experiments.folder import claim
from agents.experiments.forecast import forecast
from agents.experiments.load import load_experiment
from agents.experiments.measures import JudgeContext
from agents.experiments.run import Outcome, run_experiment
from agents.experiments.scenarios.cells import measure_run, save_measured
from agents.experiments.scenarios.kind import ScenarioKind
from agents.experiments.scenarios.measures import MEASURES
from agents.experiments.scenarios.spec import scenario_of
from agents.experiments.spec import Experiment
from agents.experiments.tables import markdown
from agents.log.events import TurnEvent
from agents.simulation.audit import audit_run
from agents.simulation.simulation import run_scenario
from steer.evaluation.decoding import nlls
from tests.agents.cli.kit import document, error_line, steer
from tests.agents.experiments.kit import Letters
from tests.agents.experiments.scenarios.kit import small_experiment, small_kind, write_file
from tests.steer.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("undrawn")


class Stop(Exception):
    pass


def go(experiment: Experiment, run: Path, model: Any, **options: Any) -> Outcome:
    return run_experiment(experiment, run, lambda: model, **{"open_judge": Letters, **options})


def nobody() -> Any:
    pytest.fail("nothing was to be done")


def samples(run: Path) -> list[dict[str, Any]]:
    """All that was written, without the clock."""
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["measures"]["seconds"]
    return rows


@pytest.fixture(scope="module")
def done(model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScenarioKind, Outcome]:
    """A run that is finished."""
    folder = tmp_path_factory.mktemp("done")
    kind = small_kind(folder, seeds=[1, 2])
    return folder, kind, go(kind.experiment, folder / "run", model)


def test_a_run_holds_every_cell_and_every_number(done: tuple[Path, ScenarioKind, Outcome]) -> None:
    folder, _, outcome = done
    rows = samples(folder / "run")
    assert len(rows) == outcome.cells == outcome.written == 2 * 2 * 2
    assert all(row["measures"].keys() | {"seconds"} == MEASURES.keys() for row in rows)
    assert not list((folder / "run" / "claims").iterdir())
    results = outcome.results
    pulled, sea = results.row("Pulled"), results.row("Pulled", "agree")
    assert pulled is not None and sea is not None
    # Seeds are averaged first: what is counted is a scenario.
    own = {
        name: [r["measures"]["similarity"] for r in rows if r["arm"] == "Pulled" and r["relation"] == name]
        for name in ("agree", "against")
    }
    assert sea.measures["similarity"].mean == pytest.approx(np.mean(own["agree"]))
    assert pulled.measures["similarity"].mean == pytest.approx(
        np.mean([np.mean(own["agree"]), np.mean(own["against"])])
    )
    assert (pulled.items, pulled.measures["similarity"].pairs) == (2, 2)
    written = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
    assert written["facts"]["threshold"] == pytest.approx(results.facts["threshold"])
    assert (folder / "run" / "table.md").read_text(encoding="utf-8") == markdown(results)
    figures = {"frontier.png", "told_by_role.png", "nearness.png"}
    assert {path.name for path in outcome.files} >= {"results.json", "table.md", "samples.jsonl"} | figures


def test_each_cell_is_a_run_like_any_other(done: tuple[Path, ScenarioKind, Outcome], model: Any) -> None:
    folder, kind, _ = done
    cell = kind.plan()[-1]
    report = audit_run(folder / "run" / "runs" / cell.key, model=model)
    assert all(check.ok for check in report.checks)


def test_arms_share_openings_and_noise(model: Any, tmp_path: Path) -> None:
    """Strength 0 writes what no pull writes."""
    arms = [
        {"name": "plain", "planner": {"method": "unguided"}},
        {"name": "none", "strengths": {"first": 0.0, "second": 0.0}},
        {"name": "pulled", "strengths": {"second": 0.0}},
    ]
    go(small_experiment(tmp_path, arms=arms), tmp_path / "run", model)
    texts = {
        name: [r["turns"] for r in samples(tmp_path / "run") if r["arm"] == name]
        for name in ("plain", "none", "pulled")
    }
    assert texts["plain"] == texts["none"] != texts["pulled"]


def test_a_second_run_does_nothing_and_says_the_same(done: tuple[Path, ScenarioKind, Outcome]) -> None:
    folder, kind, first = done
    again = run_experiment(kind.experiment, folder / "run", nobody, open_judge=nobody)
    assert (again.written, again.measured, again.cells) == (0, 0, first.cells)
    assert again.results == first.results


def test_a_run_that_is_stopped_between_and_within_cells_comes_to_the_same(
    done: tuple[Path, ScenarioKind, Outcome], model: Any, tmp_path: Path
) -> None:
    kind, run = done[1], tmp_path / "run"

    def stop(tallies: Any, cell: Any) -> None:
        if cell is not None:
            raise Stop

    with pytest.raises(Stop):
        go(kind.experiment, run, model, on_progress=stop)
    cells = kind.plan()
    assert [(run / "cells" / f"{cell.key}.json").exists() for cell in cells] == [True] + [False] * 7

    def stop_in(event: Any, arm: str) -> None:
        if isinstance(event, TurnEvent):
            raise Stop

    with pytest.raises(Stop):
        scenario = scenario_of(kind.experiment, cells[1].arm, cells[1].scenario, cells[1].seed)
        run_scenario(scenario, model, run / "runs" / cells[1].key, baseline=False, on_event=stop_in)
    (run / "runs" / cells[2].key / "store").mkdir(parents=True)  # stopped before its manifest was there
    outcome = go(kind.experiment, run, model)
    assert (outcome.written, outcome.cells) == (7, 8)
    assert samples(run) == samples(done[0] / "run")
    assert outcome.results.facts == done[2].results.facts


def test_a_cell_that_another_process_has_is_left_to_it(
    done: tuple[Path, ScenarioKind, Outcome], model: Any, tmp_path: Path
) -> None:
    kind, run = done[1], tmp_path / "run"
    cells, found = kind.plan(), []
    (run / "claims").mkdir(parents=True)
    with claim(run / "claims" / cells[0].key) as mine:
        assert mine
        thread = threading.Thread(target=lambda: found.append(go(kind.experiment, run, model)))
        thread.start()
        while not all((run / "cells" / f"{cell.key}.json").exists() for cell in cells[1:]):
            assert thread.is_alive()
            time.sleep(0.05)
        assert not (run / "runs" / cells[0].key).exists()
        kind.run_cell(cells[0], model, run / "runs" / cells[0].key)
        context = JudgeContext(model, Letters())
        save_measured(run, cells[0], measure_run(kind.scenarios, cells[0], run / "runs" / cells[0].key, context))
    thread.join()
    assert [(outcome.written, outcome.measured) for outcome in found] == [(7, 0)]
    assert samples(run) == samples(done[0] / "run")


def test_fluency_is_that_of_what_was_written_behind_what_was_read(
    done: tuple[Path, ScenarioKind, Outcome], model: Any
) -> None:
    folder, kind, _ = done
    cell = kind.plan()[1]
    run = folder / "run" / "runs" / cell.key
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    visible, total, count = list(lines[0]["ids"]), 0.0, 0
    for turn in (line for line in lines if line["type"] == "turn"):
        visible += turn["cue_ids"]
        context, ids = visible[-model.latent_config.max_context :], turn["ids"]
        total, count = total + float(nlls(model, [context], [ids])[0]) * len(ids), count + len(ids)
        visible += ids
    found = measure_run(kind.scenarios, cell, run, JudgeContext(model, None))
    assert found.base_nll == pytest.approx(total / count)


def test_without_a_judge_what_it_would_say_is_left_out_until_it_is_there(model: Any, tmp_path: Path) -> None:
    experiment, run = small_experiment(tmp_path), tmp_path / "run"
    blind = go(experiment, run, model, open_judge=lambda: None)
    row = blind.results.row("plain")
    assert row is not None and not blind.results.judged and "told" not in row.measures
    assert "pip install 'steer[judge]'" in markdown(blind.results)
    seeing = go(experiment, run, model)
    assert seeing.results.judged and (seeing.written, seeing.measured) == (0, blind.written)


def test_a_larger_limit_goes_on(model: Any, tmp_path: Path) -> None:
    experiment, run = small_experiment(tmp_path, title="A"), tmp_path / "run"
    first = go(experiment, run, model, limit=1)
    assert (first.results.items, first.written) == (("agree-sea",), 2) and np.isfinite(first.results.facts["threshold"])
    assert go(small_experiment(tmp_path, title="B"), run, model).written == 2


def test_another_experiment_scenario_or_model_needs_another_folder(
    done: tuple[Path, ScenarioKind, Outcome], tmp_path: Path, tiny_llama: Path, model: Any
) -> None:
    run = done[0] / "run"
    with pytest.raises(
        RunMismatch, match=r"another experiment: seeds was \[1, 2\], now it is \[1, 3\]; choose another"
    ):
        run_experiment(small_experiment(tmp_path, seeds=[1, 3]), run, nobody)
    path = write_file(tmp_path, seeds=[1, 2])
    scenario = tmp_path / "agree-sea.yaml"
    scenario.write_text(scenario.read_text(encoding="utf-8").replace("sun", "moon"), encoding="utf-8")
    with pytest.raises(RunMismatch, match=r"scenarios.agree-sea was"):
        run_experiment(load_experiment(path), run, nobody)
    go(small_experiment(tmp_path), tmp_path / "run", model, limit=1)
    with pytest.raises(RunMismatch, match=r"another model"):
        go(small_experiment(tmp_path), tmp_path / "run", tiny_model(tiny_llama, seed=5))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("Dear", encoding="utf-8")
    with pytest.raises(RunExists, match="holds something else .letter.txt"):
        go(small_experiment(tmp_path), tmp_path / "own", model)


def test_changed_files_are_told(model: Any, tmp_path: Path) -> None:
    experiment, run = small_experiment(tmp_path), tmp_path / "run"
    go(experiment, run, model, limit=1)
    first, second = sorted((run / "cells").iterdir())
    first.write_bytes(second.read_bytes())
    with pytest.raises(RunDamaged, match=r"was changed: its seal does not fit .*; delete it, and it is measured again"):
        go(experiment, run, model, limit=1)
    first.unlink()
    assert go(experiment, run, model, limit=1).measured == 1
    (run / "experiment.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunDamaged, match=r"experiment.json is no experiment's"):
        go(experiment, run, model, limit=1)


def test_a_forecast_writes_nothing_and_knows_what_is_done(
    done: tuple[Path, ScenarioKind, Outcome], model: Any, tmp_path: Path
) -> None:
    folder, kind, _ = done
    fresh = forecast(kind.experiment, model, tmp_path / "run")
    assert (fresh.cells, fresh.done, [arm.texts for arm in fresh.arms]) == (8, 0, [4, 4])
    assert fresh.tokens > 0 and fresh.seconds > 0 and fresh.memory > 0
    assert not (tmp_path / "run").exists()
    finished = forecast(kind.experiment, model, folder / "run")
    assert (finished.done, finished.tokens, finished.seconds) == (8, 0, 0)
    assert all(arm.measured for arm in finished.arms)


def test_the_command(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.evaluation.judge.judge_folder", lambda: None)
    file, run = write_file(tmp_path, model=str(saved)), tmp_path / "run"
    answer = document(steer("experiment", file, "--out", run, "--dry-run", "--json"))
    assert (answer["cells"], answer["done"]) == (4, 0) and not run.exists()
    first = steer("experiment", file, "--out", run)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("# small\n") and "| against: Pulled |" in first.stdout
    assert "Pulled, seed 0, against-hill (4/4)" in first.stderr
    second = steer("experiment", file, "--out", run)
    assert second.stdout == first.stdout and "nothing to do: all 4 cells" in second.stderr
    answer = document(steer("experiment", file, "--out", run, "--json"))
    assert (answer["cells"], answer["written"], answer["reference"]) == (4, 0, "plain")
    assert len(document(steer("report", run, "--json"))["files"]) == 2  # no figures without a judge
    assert "Goals were not judged" in (run / "report.html").read_text(encoding="utf-8")
    file.write_text(file.read_text(encoding="utf-8") + "colour: red\n", encoding="utf-8")
    assert "colour: unknown key" in error_line(steer("experiment", file, "--out", run))
