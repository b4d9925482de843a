"""The file of an experiment: what it may say, and what is said of its mistakes."""

import re
from pathlib import Path
from typing import Any

import pytest

from agents.errors import ExperimentError
from agents.experiments.load import kind_of, load_experiment
from agents.experiments.measures import JudgeContext
from agents.experiments.pairs.arms import ARMS, Sample, Task
from agents.experiments.pairs.kind import PairKind
from agents.experiments.pairs.measures import MEASURES
from agents.experiments.pairs.options import Options
from agents.experiments.pairs.source import load_pairs, read_pairs
from agents.experiments.pairs.spec import PairExperiment, PairSource
from agents.experiments.scenarios.kind import ScenarioKind
from agents.experiments.scenarios.spec import ScenarioExperiment
from tests.agents.experiments.kit import PAIRS, ROOT, experiment, sample
from tests.steer.tiny import tiny_model
from tests.test_docs import blocks

FILES = sorted((ROOT / "examples" / "experiments").glob("*.yaml"))
EXAMPLES = [path for path in FILES if "\npairs:" in path.read_text(encoding="utf-8")]
HEAD = "id: a\npairs: {packaged: stories}\n"
ARMS_LINE = "arms:\n  - {name: plain, method: unguided}\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_experiments(path: Path) -> None:
    loaded = load_experiment(path)
    assert isinstance(loaded, PairExperiment) and kind_of(loaded) is PairKind
    pairs = load_pairs(loaded.pairs, lambda: pytest.fail("no model is needed for a file of pairs"))
    assert len(pairs) >= (loaded.limit or 2)


def test_a_file_is_read_back_equal(tmp_path: Path) -> None:
    for path in EXAMPLES:
        first = load_experiment(path)
        copy = tmp_path / "copy.yaml"
        copy.write_text(first.to_yaml(), encoding="utf-8")
        assert load_experiment(copy) == first


def test_budgets_become_arms_of_their_own(tmp_path: Path) -> None:
    arm = {"name": "tree", "method": "search", "policy": "mcts", "budgets": [1, 4, 2.5]}
    loaded = experiment(tmp_path, arms=[{"name": "plain", "method": "unguided"}, arm], reference="tree x4")
    assert [(v.name, v.budget) for v in loaded.variants()] == [
        ("plain", None),
        ("tree x1", 1),
        ("tree x4", 4),
        ("tree x2.5", 2.5),
    ]
    assert len({v.slug for v in loaded.variants()}) == 4


def test_the_pairs_may_lie_anywhere_and_have_any_title(tmp_path: Path) -> None:
    loaded = experiment(tmp_path, title="One", limit=3)
    assert loaded.pairs.file == str(tmp_path / "pairs.jsonl")
    assert load_pairs(loaded.pairs, lambda: None) == PAIRS
    (tmp_path / "other").mkdir()
    other = experiment(tmp_path / "other", title="Two")
    assert PairKind(other, PAIRS).settings() == PairKind(loaded, PAIRS).settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "spanz: 3\n" + ARMS_LINE, r":3: spanz: unknown key; did you mean 'spans'\?"),
        (HEAD + "spans: 0\n" + ARMS_LINE, r":3: spans: .*greater than or equal to 1 \(got 0\)"),
        ("id: a\n" + ARMS_LINE, r":1: pairs: this key is missing"),
        (HEAD + "arms: []\n", r":3: arms: .*at least 1 item"),
        ("id: a\npairs: {file: a, packaged: b}\n" + ARMS_LINE, r":2: pairs: give exactly one of .*file, packaged"),
        ("id: a\npairs: {stories: a.txt}\n" + ARMS_LINE, r":2: pairs: count goes with stories"),
        (
            HEAD + ARMS_LINE + "  - {name: b, method: magic}\n",
            r":5: arms.1.method: unknown method; expected one of unguided",
        ),
        (
            HEAD + ARMS_LINE + "  - name: b\n    method: annealed\n    guidance_scael: 1\n",
            r":7: arms.1.guidance_scael: unknown key for an arm of method annealed; did you mean 'guidance_scale'\?",
        ),
        (
            HEAD + ARMS_LINE + "  - name: b\n    method: fixed\n    guidance_scale: 1\n    start: 2\n",
            r":8: arms.1.start: .*less than or equal to 1 \(got 2\)",
        ),
        (
            HEAD + ARMS_LINE + "  - {name: b, method: annealed, schedule: steep}\n",
            r":5: arms.1: unknown schedule 'steep'",
        ),
        (HEAD + ARMS_LINE + "  - {name: b, method: search}\n", r":5: arms.1: method search needs budget or budgets"),
        (
            HEAD + "arms:\n  - name: b\n    method: unguided\n    budget: 4\n",
            r":6: arms.0.budget: method unguided has no budget",
        ),
        (
            HEAD + "arms:\n  - {name: b, method: search, policy: luck, budget: 1}\n",
            r":4: arms.0: unknown policy 'luck'",
        ),
        (
            HEAD + ARMS_LINE + "  - {name: Plain, method: unguided}\n",
            r":5: arms.1.name: 'Plain' and 'plain' would share",
        ),
        (HEAD + "reference: x\n" + ARMS_LINE, r":3: reference: no such arm; expected one of plain"),
        (HEAD + "seeds: [1, 1]\n" + ARMS_LINE, r":3: seeds: a seed stands twice"),
        (HEAD + "sampling: {temperature: -1}\n" + ARMS_LINE, r":3: sampling: temperature"),
        (HEAD + "rewards: {charm: 1}\n" + ARMS_LINE, r":3: rewards.charm: unknown reward 'charm'"),
        (HEAD + "id: b\n" + ARMS_LINE, r":3: id: this key stands here twice"),
        ("- a\n", r"expected a mapping with id, arms, and pairs or scenarios; got a list"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExperimentError, match=message):
        load_experiment(path)


def test_a_prompt_has_to_tell_the_goal(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="the goal would not be told"):
        experiment(tmp_path, arms=[{"name": "told", "method": "prompted", "told": "Once"}])


class LateOptions(Options):
    quiet: int = 2


def write_late(task: Task, options: LateOptions) -> list[Sample]:
    return []


def test_an_arm_is_a_function_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record that annotates `options` is all that the file's reader knows of a new method."""
    monkeypatch.setitem(ARMS, "late", write_late)
    arm = experiment(tmp_path, arms=[{"name": "late", "method": "late", "quiet": 3}]).arms[0]
    assert arm.options == LateOptions(quiet=3)
    with pytest.raises(ExperimentError, match="unknown key for an arm of method late; did you mean 'quiet'"):
        experiment(tmp_path, arms=[{"name": "late", "method": "late", "quite": 3}])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r":2: expected a JSON object with id, context and terminal"),
        ('["a"]', r":2: expected a JSON object"),
        ('{"id": "x", "context": "A"}', r":2: .*there is no 'terminal'"),
        ('{"id": "x", "context": "A", "terminal": " "}', r":2: .*terminal is empty"),
        ('{"id": "p0", "context": "A", "terminal": "B"}', r":2: the id 'p0' stands twice"),
        ("", r"holds 1 pairs; at least two"),
    ],
)
def test_pairs_that_cannot_be_used(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"id": "p0", "context": "A", "terminal": "B"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ExperimentError, match=message):
        read_pairs(path)


def test_packaged_pairs_are_told_by_name() -> None:
    with pytest.raises(ExperimentError, match="no packaged pairs 'none'; expected stories"):
        load_pairs(PairSource(packaged="none"), lambda: None)


def test_pairs_are_cut_from_stories(tmp_path: Path, tiny_llama: Path) -> None:
    story = "A dog ran. It saw a cat. The cat hid. A man came. They ate. It was fun. The end came."
    (tmp_path / "stories.txt").write_text("\n<|endoftext|>\n".join([story] * 4), encoding="utf-8")
    loaded = experiment(tmp_path, pairs={"stories": "stories.txt", "count": 3, "seed": 1})
    pairs = load_pairs(loaded.pairs, lambda: tiny_model(tiny_llama, span_tokens=24))
    assert len(pairs) == 3 and all(pair.terminal in story for pair in pairs)


def test_the_documentation_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "experiments.md"
    named = re.findall(r"^\| `([\w-]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(ARMS)
    text, scenarios = [text for _, text in blocks(page, "yaml")]
    (tmp_path / "scenarios.yaml").write_text(scenarios, encoding="utf-8")
    loaded = load_experiment(tmp_path / "scenarios.yaml")
    assert isinstance(loaded, ScenarioExperiment)
    assert [scenario.id for scenario in ScenarioKind.make(loaded).scenarios] == ["demo", "lost_toy"]
    (tmp_path / "page.yaml").write_text(text, encoding="utf-8")
    assert load_experiment(tmp_path / "page.yaml").title == ""
    for registry, name in ((ARMS, "halfway"), (MEASURES, "dialogue")):
        monkeypatch.setitem(registry, name, None)  # so that it is taken out again
    for _, code in blocks(ROOT / "docs" / "extending.md", "python"):
        if "ARMS[" in code or "MEASURES[" in code:
            exec(code, {})
    arm = experiment(tmp_path, arms=[{"name": "a", "method": "halfway", "end": 0.4}]).arms[0]
    assert arm.options.model_dump() == {"end": 0.4}
    no_model: Any = None
    said = [sample('He said "no".'), sample("No.")]
    assert MEASURES["dialogue"].take(said, [PAIRS[0]] * 2, JudgeContext(no_model, None)).tolist() == [1, 0]
