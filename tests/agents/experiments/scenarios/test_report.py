"""`steer report` of scenarios: the same kind of page, with what became of whose goals, and transcripts side by side."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from agents.errors import RunDamaged
from agents.experiments.figures import BY_ROLE, COURSE, FRONTIER, drawings
from agents.experiments.findings import findings
from agents.experiments.kind import ArmInfo
from agents.experiments.measures import glossary
from agents.experiments.report import as_html, as_markdown, read_report, write_report
from agents.experiments.results import Results
from agents.experiments.run import run_experiment
from agents.experiments.scenarios.measures import MEASURES
from agents.experiments.seals import REPORTED, seal_report
from agents.experiments.statistics import Estimate
from agents.experiments.tables import show
from steer.displayed import printable
from steer.models.latent_model import LatentModel
from tests.agents.cli.kit import document, steer
from tests.agents.experiments.kit import Letters, made_results, made_test
from tests.agents.experiments.scenarios.kit import ARMS, small_experiment
from tests.agents.experiments.test_report import Page


@pytest.fixture(scope="module")
def run(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two scenarios and two seeds; one arm is run in one of the scenarios alone."""
    folder = tmp_path_factory.mktemp("report")
    arms = [*ARMS, {"name": "one <b>", "planner": {"method": "annealed"}, "relations": ["against"]}]
    experiment = small_experiment(folder, seeds=[3, 4], arms=arms, title="Cats & <dogs>")
    run_experiment(experiment, folder / "run", lambda: model, open_judge=Letters)
    return folder / "run"


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return as_html(read_report(run))


def test_the_page_holds_the_numbers_and_the_first_runs(run: Path, html: str) -> None:
    report = read_report(run)
    told = as_markdown(report)
    page = Page(html)
    words = " ".join(" ".join(page.words).split())
    assert not any(page.all(tag) for tag in ("script", "link", "img", "iframe", "b"))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    assert {attributes.get("scope") for attributes in page.all("th")} == {"row", "col"}
    for row in report.results.rows:
        shown = show(report.results, row.measures["told"], "told")
        assert shown in words and shown in told
    for name, line in glossary(report.results.measures, MEASURES):
        assert f"{name} {line}" in words and f"- `{name}`: {line}" in told
    for line in findings(report.results):
        assert line.replace("`", "") in words.replace(" told , which", " told, which") and line in told
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [example.name for example in report.examples] == ["agree-sea", "against-hill"]
    assert [[text.arm for text in example.texts] for example in report.examples] == [
        ["plain", "Pulled"],
        ["plain", "Pulled", "one <b>"],
    ]
    for example in report.examples:
        first = {row["arm"]: row for row in rows if (row["scenario"], row["seed"]) == (example.name, 3)}
        for text in example.texts:
            assert len(text.parts) == len(first[text.arm]["turns"])
            assert all(" ".join(printable(turn).split()) in words for _, turn in text.parts)
            assert len(text.goals) == len(first[text.arm]["goals"]) == len(example.goals)
    assert "turns:" not in told and "against-hill" in told and "planner:" in told


def test_the_same_run_gives_the_same_page(
    run: Path, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_report(run, tmp_path / "a")
    assert [path.name for path in files] == ["report.html", "report.md", FRONTIER, BY_ROLE, COURSE]
    assert files[0].read_text(encoding="utf-8") == html
    assert all(f"]({path.name})" in files[1].read_text(encoding="utf-8") for path in files[2:])
    monkeypatch.setattr("agents.experiments.report.drawings", lambda results: {})  # the figures were drawn above
    found = document(steer("report", run, "--out", tmp_path, "--json"))
    assert [Path(path).name for path in found["files"]] == [path.name for path in files[:2]]


def test_results_are_read_back(run: Path) -> None:
    text = (run / "results.json").read_text(encoding="utf-8")
    assert Results.load(run / "results.json").to_json() == text


def test_the_course_of_a_run_is_what_came_nearest_so_far(run: Path) -> None:
    results = Results.load(run / "results.json")
    assert list(results.courses) == ["plain", "Pulled"]  # an arm that is run in some scenarios alone is not compared
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    for arm, course in results.courses.items():
        goals = [goal for row in rows if row["arm"] == arm for goal in row["goals"]]
        assert course[-1] == pytest.approx(np.mean([goal["similarity"] for goal in goals]))
        firsts = [goal["by_turn"][0] for goal in goals]
        assert course[0] == pytest.approx(np.mean([value for value in firsts if value is not None]))
        assert all(np.diff(course) >= 0)


def test_runs_that_cannot_be_told(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for goal in row["goals"]:
            del goal["role"]
    (copy / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(RunDamaged, match=r"samples.jsonl was changed.*steer experiment"):
        write_report(copy)
    seal_report(copy, REPORTED)
    with pytest.raises(RunDamaged, match=r"role.*steer experiment"):
        write_report(copy)
    (copy / "seal.json").unlink()
    with pytest.raises(RunDamaged, match=r"no seal of a finished run"):
        write_report(copy)
    (copy / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunDamaged, match="no results"):
        write_report(copy)
    assert not (copy / "report.html").exists()


def test_findings_of_a_run() -> None:
    def row(arm: str, share: float) -> tuple[ArmInfo, dict[str, Estimate]]:
        value = Estimate(share, 0.0, 1.0, 4)
        return ArmInfo(arm, arm), {"told": value, "reached": Estimate(1.0, 1.0, 1.0, 4)}

    tests = (made_test("told", "up", "none", 0.5, 0.01), made_test("told", "same", "none", 0.0, 1.0))
    rows = [row("none", 0.25), row("up", 0.75), row("same", 0.25)]
    results = made_results(rows, tests=tests, kind="scenarios", facts={"threshold": 0.6})
    first, own, *rest = findings(results)
    assert "most often with up: 75 % (0 to 100)" in first and "reference none: 25 %" in first
    assert "runs of up reached 100 %" in own
    assert rest == [
        "1 of 2 arms differ from none beyond chance (p < 0.05, adjusted for 2 tests).",
        "Goals were told more often with up.",
    ]
    unjudged = dataclasses.replace(results, judged=False, facts={"threshold": math.nan})
    assert "not judged" in findings(unjudged)[0] and drawings(unjudged) == {}
