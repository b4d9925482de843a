"""Measures of scenarios that were run and what is made of them, against numbers that were worked out by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.experiments.results import summarise
from agents.experiments.scenarios import measures as m
from agents.experiments.scenarios.cells import Measured, ScenarioCell, Turn, set_goals
from agents.experiments.scenarios.kind import ScenarioKind
from agents.experiments.tables import tables
from tests.agents.experiments.scenarios.kit import load_kind, small_kind

# Goals of the set, in order: ann/boat and bob/boat (the same text) of agree-sea, cat/up and dan/down of against-hill.
QUIET = (0.0, 0.0, 0.0, 0.0)


def turn(character: str, *rows: Sequence[float], text: str = "One two.") -> Turn:
    similarities = tuple(tuple(row) for row in rows)
    return Turn(character=character, text=text, sentences=tuple("s" for _ in rows), similarities=similarities)


def found(cell: ScenarioCell, *turns: Turn, reached: bool = False, nll: float | None = 1.0) -> Measured:
    keys = [f"{c.id}/{g.id}" for c, g in cell.scenario.goals()]
    fields: dict[str, Any] = {
        "cell": cell.key,
        "turns": turns,
        "reached": dict.fromkeys(keys, reached),
        "base_nll": nll,
    }
    return Measured(**fields, tokens=8, seconds=0.5, judged=True)


def run_of(kind: ScenarioKind, number: int, *turns: Turn, threshold: float = 0.5, **fields: Any) -> m.MeasuredRun:
    cell = kind.plan()[number]
    return m.make_run(kind.scenarios, cell, found(cell, *turns, **fields), threshold)


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> ScenarioKind:
    return small_kind(tmp_path_factory.mktemp("scenarios"))


@pytest.fixture(scope="module")
def hill(kind: ScenarioKind) -> m.MeasuredRun:
    """Cat tells Dan's goal, and is near her own; Dan tells hers."""
    return run_of(
        kind,
        2,
        turn("cat", (0.1, 0.1, 0.4, 0.2), (0.2, 0.2, 0.3, 0.6)),
        turn("dan", (0.1, 0.1, 0.7, 0.3), (0.65, 0.65, 0.2, 0.1)),
        turn("cat", QUIET),
    )


def test_goals_of_the_set_are_in_order(kind: ScenarioKind) -> None:
    assert [key for _, key, _ in set_goals(kind.scenarios)] == ["ann/boat", "bob/boat", "cat/up", "dan/down"]


def test_goals_are_told_by_sentences_and_leak_through_others(hill: m.MeasuredRun) -> None:
    assert m.told(hill).tolist() == [1, 1] and m.all_told(hill).tolist() == [1]
    assert m.similarity(hill).tolist() == [0.7, 0.6]
    assert m.ahead(hill).tolist() == [1, 0]
    # Another scenario's goal came as near as 0.65.
    assert m.nearest(hill).tolist() == [1, 0]
    # Cat's goal in Dan's one turn; Dan's in Cat's two, of which the second says nothing.
    assert m.leakage(hill).tolist() == pytest.approx([0.7, (0.6 + 0.0) / 2])
    assert m.told_by_others(hill).tolist() == [1, 1]


def test_a_threshold_decides(kind: ScenarioKind) -> None:
    turns = turn("cat", (0, 0, 0.4, 0.2)), turn("dan", (0, 0, 0.3, 0.6))
    strict = run_of(kind, 2, *turns, threshold=0.5)
    assert m.told(strict).tolist() == [0, 1] and m.all_told(strict).tolist() == [0]
    assert m.told_by_others(strict).tolist() == [0, 0]
    assert np.isnan(m.told(run_of(kind, 2, *turns, threshold=np.nan))).all()


def test_who_shares_a_goal_does_not_leak_it(kind: ScenarioKind) -> None:
    sea = run_of(kind, 0, turn("ann", (0.9, 0.9, 0, 0)), turn("bob", (0.8, 0.8, 0, 0)))
    assert np.isnan(m.leakage(sea)).all() and np.isnan(m.told_by_others(sea)).all()
    assert m.told(sea).tolist() == [1, 1]
    assert m.ahead(sea).tolist() == [0.5, 0.5]


def test_what_comes_after_a_deadline_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "against-hill.yaml"
    small_kind(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("text: My cat.", "text: My cat.\n    by_turn: 1"))
    changed = load_kind(tmp_path / "experiment.yaml")
    late = run_of(changed, 2, turn("cat", (0, 0, 0.1, 0)), turn("dan", (0, 0, 0.9, 0.9)))
    assert m.told(late).tolist() == [0, 1]
    assert m.similarity(late).tolist() == [0.1, 0.9]
    assert np.isnan(m.leakage(late)[0])


def test_a_run_without_a_sentence_tells_nothing(kind: ScenarioKind) -> None:
    silent = run_of(kind, 2, turn("cat", text=""), turn("dan", text=""), nll=None)
    assert m.told(silent).tolist() == [0, 0]
    for name in ("similarity", "nearest", "leakage", "base_nll", "distinct_3", "repetition", "ahead"):
        assert np.isnan(m.MEASURES[name].take(silent)).all()


def test_the_text_is_measured_whole(kind: ScenarioKind) -> None:
    one = run_of(
        kind, 2, turn("cat", QUIET, text="Cat ran up the hill."), turn("dan", QUIET, text="Cat ran up the hill.")
    )
    wanted = {"distinct_3": 5 / 8, "repetition": 4 / 7, "base_nll": 1.0, "tokens": 8.0, "seconds": 0.5}
    assert {name: m.MEASURES[name].take(one).tolist() for name in wanted} == {k: [v] for k, v in wanted.items()}


def test_the_threshold_is_what_one_unrelated_pair_in_a_thousand_reaches(kind: ScenarioKind) -> None:
    rng = np.random.default_rng(0)
    cells = kind.plan()
    measured, unrelated = [], []
    for cell in cells:
        rows = rng.uniform(size=(700, 4))
        foreign = slice(2, 4) if cell.scenario.id == "agree-sea" else slice(0, 2)
        unrelated.append(rows[:, foreign].ravel())
        rows[:, slice(0, 2) if foreign.start else slice(2, 4)] += 10  # what is related does not count
        measured.append(found(cell, turn("ann", *rows.tolist())))
    threshold = m.told_threshold(kind.scenarios, cells, measured)
    assert (np.concatenate(unrelated) >= threshold).mean() == pytest.approx(0.001, abs=2e-4)


def test_rows_are_by_arm_relation_and_role(tmp_path: Path) -> None:
    arms: list[dict[str, Any]] = [{"name": "a"}, {"name": "b"}, {"name": "c", "relations": ["against"]}]
    kind = small_kind(tmp_path, arms=arms, seeds=[0, 1])
    cells = kind.plan()
    # In the second seed, arm b tells what the first of the hill wants; all else is quiet but for one loud stranger.
    measured = []
    for cell in cells:
        own = (0, 0, 0.9, 0) if (cell.arm.name, cell.seed, cell.scenario.id) == ("b", 1, "against-hill") else QUIET
        measured.append(found(cell, turn("cat", own), turn("dan", QUIET), reached=cell.arm.name == "b"))
    results = summarise(kind, kind.gather(cells, measured, judged=True), judged=True)
    assert results.facts["threshold"] == 0.0  # nothing unrelated was near at all

    def mean(name: str, *place: str) -> float:
        row = results.row(*place)
        assert row is not None
        return row.measures[name].mean

    assert mean("similarity", "b", "against", "first") == 0.45
    assert mean("similarity", "b", "against", "second") == 0
    assert mean("similarity", "b", "against") == 0.225
    assert mean("similarity", "b") == pytest.approx(0.1125)
    assert mean("ahead", "b", "against", "first") == 0.75  # shared in the first seed
    assert results.row("c") is None and results.row("c", "agree") is None
    assert mean("similarity", "c", "against") == 0
    assert results.groups() == ["against", "agree"]
    test = next(t for t in results.tests if (t.measure, t.first) == ("reached", "b"))
    assert (test.second, test.comparison.difference.mean, test.comparison.difference.pairs) == ("a", 1, 2)
    limited = next(t for t in results.tests if (t.measure, t.first) == ("reached", "c"))
    assert limited.comparison.difference.pairs == 1
    titles = [title for title, _, _ in tables(results)]
    assert "By relation of the goals" in titles and "By role, against" in titles
    lines = next(rows for title, _, rows in tables(results) if title == "By relation of the goals")
    assert [line[:1] for line in lines] == [
        ["against: a"],
        ["against: b"],
        ["against: c"],
        ["agree: a"],
        ["agree: b"],
    ]
