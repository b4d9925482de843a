"""`steer report`: a page that needs nothing else, holds all numbers, and is no way in for what a model wrote."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agents.errors import RunDamaged, RunNotFound, RunWriteError
from agents.experiments.drawing import as_svgs
from agents.experiments.figures import BY_BUDGET, FRONTIER, drawings
from agents.experiments.findings import findings
from agents.experiments.kind import ArmInfo
from agents.experiments.measures import glossary
from agents.experiments.pairs.arms import ARMS, Sample, Task, write_unguided
from agents.experiments.pairs.measures import MEASURES
from agents.experiments.pairs.options import Options, SearchOptions
from agents.experiments.report import as_html, as_markdown, read_report, write_report
from agents.experiments.results import Results
from agents.experiments.run import run_experiment
from agents.experiments.statistics import Estimate
from agents.experiments.tables import difference_table, markdown, show
from steer.displayed import printable
from tests.agents.cli.kit import document, error_line, steer
from tests.agents.experiments.kit import PAIRS, Letters, experiment, made_results, made_test

NASTY = '</article><script src="http://example.org/x.js">alert("*hi*")</script> & |so on|'
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The tags of a page, and its text; refuses tags that do not fit into each other."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def write_nasty(task: Task, options: Options) -> list[Sample]:
    """Texts that try to leave their place on the page."""
    return [dataclasses.replace(sample, text=NASTY) for sample in write_unguided(task, options)]


def write_bought(task: Task, options: SearchOptions) -> list[Sample]:
    """An arm with budgets, without a search."""
    return write_unguided(task, options)


@pytest.fixture(scope="module")
def run(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("report")
    arms = [
        {"name": "plain", "method": "unguided"},
        {"name": "nasty <b>", "method": "nasty"},
        {"name": "told", "method": "prompted", "told": "{terminal} "},
        {"name": "bought", "method": "bought", "budgets": [1, 4]},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARMS, "nasty", write_nasty)
        patch.setitem(ARMS, "bought", write_bought)
        loaded = experiment(folder, seeds=[3, 4], arms=arms, title="Cats & <dogs>")
        run_experiment(loaded, folder / "run", lambda: model, open_judge=Letters)
    return folder / "run"


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return as_html(read_report(run))


def test_the_page_needs_nothing_else(html: str) -> None:
    page = Page(html)
    assert not any(page.all(tag) for tag in ("script", "link", "img", "iframe"))
    addresses = [str(a.get(key)) for _, a in page.tags for key in ("src", "href", "xlink:href") if key in a]
    assert addresses and all(address.startswith("#") for address in addresses)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    # What an address in the page or a clip path of a figure names is there, once.
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert set(ids.values()) == {1}
    assert {address[1:] for address in addresses} | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_what_was_written_stays_text(html: str) -> None:
    page = Page(html)
    words = "".join(page.words)
    assert words.count(NASTY) == 6 and "<script" not in html
    assert "nasty <b>" in words and page.words.count("Cats & <dogs>") == 2 and not page.all("b")


def test_tables_can_be_read_aloud(html: str) -> None:
    page = Page(html)
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) > 3
    assert {attributes.get("scope") for attributes in page.all("th")} == {"row", "col"}
    assert all(attributes.get("aria-label") for _, attributes in page.tags if attributes.get("role"))
    assert sum(attributes.get("role") == "img" for attributes in page.all("div")) == 2


def test_both_hold_the_numbers_and_the_first_texts(run: Path, html: str) -> None:
    report, words = read_report(run), " ".join(" ".join(Page(html).words).split())
    told = as_markdown(report)
    for row in report.results.rows:
        shown = show(report.results, row.measures["nearest"], "nearest")
        assert shown in words and shown in told
    for name, line in glossary(report.results.measures, MEASURES):
        assert f"{name} {line}" in words and f"- `{name}`: {line}" in told
    for part in (report.totals, *findings(report.results)):
        assert part in words and part in told
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [example.given for example in report.examples] == [
        (("Context", p.context), ("Goal", p.terminal)) for p in PAIRS
    ]
    for pair, example in zip(PAIRS, report.examples, strict=True):
        first = {row["arm"]: row["text"] for row in rows if (row["pair"], row["seed"]) == (pair.id, 3)}
        assert [text.arm for text in example.texts] == [arm.name for arm in report.results.arms]
        assert {text.arm: text.parts[0][1] for text in example.texts} == first
        assert all(" ".join(printable(text.parts[0][1]).split()) in words for text in example.texts)
    assert f"python: {report.manifest.versions['python']}" in told and "chunk: 2" in told
    # Nothing in it is Markdown of a model's.
    assert "\\*hi\\*" in told and "\\<script" in told and not re.search(r"(?<!\\)<script", told)


def test_names_and_settings_are_words(run: Path) -> None:
    evil = "\x1b]0;t\x07\u202e<script>alert(1)</script> [y](javascript:1) ``` |"
    report = read_report(run)
    results = report.results
    first, *others = results.arms
    arms = [dataclasses.replace(first, name=evil), *others]
    rows = [dataclasses.replace(row, arm=evil) if row.arm == first.name else row for row in results.rows]
    reference = evil if results.reference == first.name else results.reference
    results = dataclasses.replace(
        results, title=evil, model=evil, arms=tuple(arms), rows=tuple(rows), reference=reference
    )
    report = dataclasses.replace(report, results=results, settings=f"x:\n```\n{evil}")
    for page in (as_html(report), as_markdown(report), markdown(results)):
        assert not set("\x1b\x07\u202e") & set(page)
    assert "<script" not in as_html(report)
    for page in (as_markdown(report).partition("## Settings")[0], markdown(results)):
        assert page.count("\\<script\\>alert") > 3 and not re.search(r"(?<!\\)(<script|\[y\]|`{3})", page)
    assert "\n````yaml\nx:\n```\n" in as_markdown(report)


def test_the_same_run_gives_the_same_page(run: Path, html: str, tmp_path: Path) -> None:
    files = write_report(run, tmp_path / "a" / "b")
    assert [path.name for path in files] == ["report.html", "report.md", FRONTIER, BY_BUDGET]
    assert files[0].read_text(encoding="utf-8") == html
    assert all(f"]({path.name})" in files[1].read_text(encoding="utf-8") for path in files[2:])


def test_figures_take_the_colours_of_the_page(run: Path) -> None:
    for name, figure in as_svgs(drawings(Results.load(run / "results.json"))).items():
        assert figure.startswith("<svg ") and figure.rstrip().endswith("</svg>")
        assert "currentColor" in figure and "#000000" not in figure and "#ffffff" not in figure
        assert f'id="{Path(name).stem}-0"' in figure and "metadata" not in figure


def test_runs_that_cannot_be_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="experiment.json"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunWriteError, match="cannot write"):
        write_report(run, tmp_path / "file")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "samples.jsonl").write_text('{"seed": 3}\n', encoding="utf-8")
    with pytest.raises(RunDamaged, match="samples.jsonl was changed"):
        write_report(copy)
    (copy / "results.json").unlink()
    with pytest.raises(RunDamaged, match="no results"):
        write_report(copy)
    assert not (copy / "report.html").exists()


def test_findings_count_the_tests() -> None:
    def arm(name: str, share: float, *, diegetic: bool = False) -> tuple[ArmInfo, dict[str, Estimate]]:
        return ArmInfo(name, name, diegetic=diegetic), {"nearest": Estimate(share, 0.0, 1.0, 8)}

    rows = [arm("none", 0.5), arm("up", 0.75), arm("down", 0.0), arm("same", 0.5), arm("told", 1.0, diegetic=True)]
    found = (("up", 0.25, 0.01), ("down", -0.5, 0.04), ("same", 0.0, 1.0), ("told", 0.5, 0.001))
    tests = tuple(made_test("nearest", name, "none", difference, p) for name, difference, p in found)
    results = made_results(rows, tests=tests)
    first, *rest = findings(results)
    assert "most often with up: 75 % (0 to 100)" in first and "reference none: 50 %" in first
    assert rest == [
        "2 of 3 arms differ from none beyond chance (p < 0.05, adjusted for 4 tests).",
        "It was nearest more often with up.",
        "It was nearest less often with down.",
    ]
    # A reference that tells the goal is still what the others are told from.
    assert findings(made_results(rows[-1:]))[0].count("told: 100 %") == 2
    sheet = difference_table(results, "nearest")
    assert sheet is not None and sheet[2][0][4] == "d = +0.50, δ = +0.25"
    unjudged = dataclasses.replace(results, judged=False)
    assert "not judged" in findings(unjudged)[0] and drawings(unjudged) == {}


def test_the_command(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.experiments.report.drawings", lambda results: {})  # see above
    done = steer("report", run, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == str(tmp_path / "report.html")
    assert len(document(steer("report", run, "--out", tmp_path, "--json"))["files"]) == 2
    assert "no run of an experiment" in error_line(steer("report", tmp_path))
