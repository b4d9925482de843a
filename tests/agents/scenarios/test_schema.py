"""Scenario files: what is refused, and that errors name the line and the key."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.errors import ArgumentError, ScenarioError, ScenarioNotFound
from agents.scenarios.loading import find_scenario, load_scenario, packaged_scenarios, scenario_schema
from agents.scenarios.schema import override
from tests.agents.conftest import make_scenario

GOOD = """\
schema_version: 1
id: walk
opening: It was a sunny day.
turns: 6
characters:
  - id: fox
    name: Fox
    goals:
      - id: bread
        kind: terminal
        text: The fox shared the bread with the bird.
        by_turn: 4
  - id: owl
    name: Owl
planner:
  method: annealed
  start: 0.1
sampling:
  temperature: 0.7
"""


def load(tmp_path: Path, text: str) -> None:
    file = tmp_path / "walk.yaml"
    file.write_text(text, encoding="utf-8")
    load_scenario(file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "kind: terminal",
            "kind: termnal",
            r"walk\.yaml:10: characters\.0\.goals\.0\.kind: .*'terminal' or 'avoid'.*termnal",
        ),
        (
            "        by_turn: 4",
            "        by_turn: 9",
            r"walk\.yaml:12: characters\.0\.goals\.0\.by_turn: by_turn is 9.* 6 turns",
        ),
        ("    name: Owl", "    nmae: Owl", r"walk\.yaml:14: characters\.1\.nmae: unknown key; did you mean 'name'"),
        ("  - id: owl", "  - id: fox", r"walk\.yaml:13: characters\.1\.id: a second character with the id 'fox'"),
        ("name: Owl", "name: fox", r"walk\.yaml:14: characters\.1\.name: a second character"),
        ("name: Owl", "name: ' '", r"walk\.yaml:14: characters\.1\.name: the name is empty"),
        ("name: Owl", 'name: "O\\nwl"', r"walk\.yaml:14: .*single line"),
        ("turns: 6\n", "", r"walk\.yaml:1: turns: this key is missing"),
        ("turns: 6", "turns: 0", r"walk\.yaml:4: turns: .*greater than or equal to 1 \(got 0\)"),
        ("turns: 6", "turns: yes", r"walk\.yaml:4: turns: expected a number; got a truth value"),
        ("turns: 6", "turns: 6\nturns: 7", r"walk\.yaml:5: turns: this key stands here twice"),
        ("start: 0.1", "start: 1.5", r"walk\.yaml:17: planner\.start"),
        (
            "start: 0.1",
            "schedule: bride",
            r"walk\.yaml:17: planner\.schedule: unknown schedule; expected one of bridge",
        ),
        ("start: 0.1", "method: fixed\n  end: 0.4", r"this key stands here twice"),
        ("temperature: 0.7", "temperature: -1", r"walk\.yaml:18: sampling: temperature is 0"),
        ("temperature: 0.7", "temprature: 1", r"walk\.yaml:19: sampling\.temprature: .*'temperature'"),
        (
            "text: The fox shared",
            "text: It was a sunny day and the fox shared",
            r"walk\.yaml:11: .*'it was a sunny day'.*opening",
        ),
        ("schema_version: 1", "schema_version: 2", r"walk\.yaml:1: schema_version"),
        ("opening: It was a sunny day.", "opening: ''", r"walk\.yaml:3: opening: the opening is empty"),
        ("id: walk", "id: a/b", r"walk\.yaml:2: id: .*pattern"),
        ("opening: It", "opening: [It", r"walk\.yaml:\d+: not valid YAML"),
        ("    name: Owl", "    name: &n Owl\n    voice: [*n]", r"walk\.yaml:15: aliases \(\*n\)"),
    ],
)
def test_errors_name_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ScenarioError, match=message):
        load(tmp_path, GOOD.replace(old, new, 1))


def test_a_schedule_must_take_its_options(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r":15: planner: schedule 'constant' has no option end"):
        load(tmp_path, GOOD.replace("annealed\n  start: 0.1", "fixed\n  end: 0.4"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "[" * 400, "a: \x07"])
def test_what_is_no_mapping(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScenarioError, match=r"walk\.yaml"):
        load(tmp_path, text)


def test_a_goal_whose_words_hold_braces(tmp_path: Path) -> None:
    text = GOOD.replace("It was a sunny day.", "'{a} b {c} d e'").replace("The fox shared", "'{a} b {c} d e f'  #")
    with pytest.raises(ScenarioError, match="'a b c d e'"):
        load(tmp_path, text)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ScenarioNotFound, match="no scenario file at .*; packaged scenarios: demo,") as caught:
        load_scenario(tmp_path / "none.yaml")
    assert isinstance(caught.value, FileNotFoundError)
    (tmp_path / "latin.yaml").write_bytes("id: caf\u00e9".encode("latin-1"))
    with pytest.raises(ScenarioError, match="UTF-8"):
        load_scenario(tmp_path / "latin.yaml")
    with pytest.raises(ScenarioError, match="cannot read scenario"):
        load_scenario(tmp_path)


@pytest.mark.parametrize("path", [3, None, "", b"demo", "a\0b"])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(ArgumentError, match="the path of a scenario must be a path"):
        load_scenario(path)


def test_packaged_scenarios_are_known_by_name_but_a_file_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in packaged_scenarios().items():
        (tmp_path / name).mkdir()  # a folder is no scenario
        assert find_scenario(name) == path and load_scenario(name).id == name
    (tmp_path / "demo").rmdir()
    (tmp_path / "demo").write_text(GOOD, encoding="utf-8")
    assert load_scenario("demo").id == "walk"


@pytest.mark.parametrize("change", [{"turns": "3"}, {"seed": 1.5}, {"turns": True}])
def test_overrides_are_whole_numbers(change: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="must be a whole number"):
        override(make_scenario(), **change)


def test_many_errors_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, GOOD.replace("kind: terminal", "kind: x").replace("turns: 6", "turns: many"))
    assert str(caught.value).count("walk.yaml:") == 2


def test_yaml_round_trip(tmp_path: Path) -> None:
    scenario = make_scenario(opening="Caf\u00e9: \U0001f98a 'and' \"so\" # on\n\n- yes", title="no")
    file = tmp_path / "copy.yaml"
    file.write_text(scenario.to_yaml(), encoding="utf-8")
    assert load_scenario(file) == scenario
    assert load_scenario(file).sha256() == scenario.sha256()
    assert make_scenario(seed=6).sha256() != scenario.sha256()


def test_override_moves_deadlines() -> None:
    scenario = make_scenario(turns=9)
    short = override(scenario, turns=1, seed=8)
    assert (short.turns, short.seed) == (1, 8)
    assert [goal.by_turn for _, goal in short.goals()] == [1, None, None, None]
    assert override(scenario) == scenario
    with pytest.raises(ScenarioError, match="turns: .*got 0"):
        override(scenario, turns=0)


def test_schema_names_all_keys_and_refuses_others() -> None:
    schema = json.loads(json.dumps(scenario_schema()))
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"id", "opening", "turns", "characters"}
    assert set(schema["properties"]) == set(make_scenario().model_dump())
    assert {"Character", "Goal", "Planner", "Sampling"} <= set(schema["$defs"])


def test_packaged_scenarios_load() -> None:
    scenarios = packaged_scenarios()
    assert "demo" in scenarios
    assert {load_scenario(path).format for path in scenarios.values()} == {"prose", "script"}
    for name, path in scenarios.items():
        assert load_scenario(path).id == name


def test_cues_and_turns() -> None:
    scenario = make_scenario()
    ann, bob = scenario.characters
    assert [scenario.speaker(turn) for turn in (1, 2, 3)] == [ann, bob, ann]
    assert scenario.cue(ann) == "\n\nAnn"
    assert make_scenario(format="script").cue(bob) == "\nBob:"


@pytest.mark.parametrize("model", ["./model", "../model", "models/mine", "owner/name", "llama-fable-6m"])
def test_paths_count_from_the_scenarios_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    folder = tmp_path / "scenes"
    (folder / "models" / "mine").mkdir(parents=True)
    roadmap = "planner:\n  roadmap: {store: passages}"
    text = GOOD.replace("turns: 6", f"turns: 6\nmodel: {model}").replace("planner:", roadmap)
    (folder / "walk.yaml").write_text(
        text.replace("    name: Owl", "    name: Owl\n    wishes: [{like: a, among: ../b}]")
    )
    monkeypatch.chdir(tmp_path)
    scenario = load_scenario("scenes/walk.yaml")
    assert scenario.model == (model if model in ("owner/name", "llama-fable-6m") else str(folder / model))
    assert scenario.planner.roadmap is not None and scenario.planner.roadmap.store == str(folder / "passages")
    assert scenario.characters[1].wishes[0].among == str(folder / "../b")
