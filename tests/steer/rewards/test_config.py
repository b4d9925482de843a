"""What people may write, what it comes to, and what the messages say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import steer.rewards
from steer.errors import RewardError, TextError
from steer.rewards import REWARDS, RewardsConfig, RewardSpec, default_rewards, load_rewards
from steer.rewards.text import RepetitionOptions

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rewards.md"
RUBRIC = {"options": {"questions": ["Is it good?"]}}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rewards.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_short_and_long_ways_to_write_are_the_same() -> None:
    spec = load_rewards({"repetition": -0.25}).root["repetition"]
    assert spec == RewardSpec(reward="repetition", weight=-0.25, at="step", options=RepetitionOptions())
    assert load_rewards({"repetition": {"weight": -0.25, "at": "step", "options": {"n": 4}}}).root == {
        "repetition": spec
    }
    assert RewardsConfig({"repetition": spec}).root == {"repetition": spec}


@pytest.mark.parametrize("name", REWARDS)
def test_defaults_are_the_rewards_own(name: str) -> None:
    needed: dict[str, Any] = {"rubric": RUBRIC["options"], "preference": {"path": "head.safetensors"}}
    spec = load_rewards({"other": {"reward": name, "options": needed.get(name)}}).root["other"]
    assert (spec.reward, spec.weight, spec.at) == (name, REWARDS[name].weight, REWARDS[name].at)
    assert type(spec.options) is REWARDS[name].options


def test_a_reward_may_count_twice() -> None:
    config = load_rewards(
        {"similarity": 1, "similarity_now": {"reward": "similarity", "at": "potential", "weight": 0.5}}
    )
    assert [(n, s.reward, s.at) for n, s in config.root.items()] == [
        ("similarity", "similarity", "end"),
        ("similarity_now", "similarity", "potential"),
    ]


@pytest.mark.parametrize("arguments", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_the_default_asks_only_for_what_is_there(arguments: tuple[int, int, int]) -> None:
    terminal, reach, avoid = map(bool, arguments)
    specs = default_rewards(terminal, reach, avoid).root.values()
    used = {spec.reward for spec in specs}
    assert used == {"fluency", "repetition"} | {
        name for name, there in (("similarity", terminal), ("reach", terminal and reach), ("avoid", avoid)) if there
    }
    potentials = [spec.reward for spec in specs if spec.at == "potential"]
    assert potentials == ([] if not terminal else ["reach"] if reach else ["similarity"])


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    config = load_rewards(
        {**{k: v.model_dump() for k, v in default_rewards(True, True, True).root.items()}, "rubric": RUBRIC}
    )
    assert load_rewards(written(tmp_path, yaml.safe_dump(config.model_dump(mode="json")))) == config
    assert RewardsConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param({}, "there are no rewards", id="empty"),
        pytest.param({"simil": 1}, "simil: unknown reward 'simil'; expected one of similarity, avoid", id="name"),
        pytest.param({"x": {"reward": 3}}, "x: unknown reward 3", id="type of name"),
        pytest.param({"fluency": True}, "fluency.weight: .*truth value", id="bool"),
        pytest.param({"fluency": "much"}, r"fluency.weight: .*\(got 'much'\)", id="text"),
        pytest.param({"fluency": float("inf")}, "fluency.weight: .*finite", id="infinite"),
        pytest.param({"fluency": {"wait": 1}}, "fluency.wait: unknown key; did you mean 'at'", id="key"),
        pytest.param({"fluency": {"at": "now"}}, "fluency.at: .*'step', 'end' or 'potential'", id="at"),
        pytest.param({"fluency": {"options": {"n": 1}}}, "fluency.options.n: unknown option; expected none", id="none"),
        pytest.param(
            {"repetition": {"options": {"m": 1}}}, "options.m: unknown option; expected one of n, context", id="option"
        ),
        pytest.param({"repetition": {"options": {"n": 0}}}, "repetition.options.n: .*greater", id="value"),
        pytest.param({"rubric": 1}, "rubric.options.questions: this key is missing", id="missing"),
        pytest.param(
            {"rubric": {"options": {"questions": [{"question": "?", "sign": 0}]}}},
            r"rubric.options.questions.0.sign: .*1 or -1",
            id="sign",
        ),
        pytest.param(
            {"rubric": {"options": {"questions": ["?"], "yes_words": [True]}}},
            r"rubric.options.yes_words.0: .*string",
            id="yes is true",
        ),
    ],
)
def test_messages_name_the_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        load_rewards(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("fluency: 1\nfluency: 2\n", "fluency: this key stands here twice", id="twice"),
        pytest.param("rubric: {weight: 1, weight: 2}", "weight: this key stands here twice", id="twice inside"),
        pytest.param("- fluency", "expected a mapping", id="list"),
        pytest.param("", "expected a mapping", id="empty"),
        pytest.param("fluency: [", "not valid YAML", id="broken"),
        pytest.param("fluency: 2020-99-99", "fluency.weight: .*2020-99-99", id="date"),
        pytest.param("fluency: &a {options: *a}", "aliases", id="alias of itself"),
        pytest.param("fluencies: 1", r"rewards.yaml:1: fluencies: unknown reward", id="place"),
    ],
)
def test_files_are_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        load_rewards(written(tmp_path, text))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot read rewards file"):
        load_rewards(tmp_path / "none.yaml")


def test_the_page_on_rewards_is_true(tmp_path: Path) -> None:
    """Its YAML is accepted, its Python runs, and its table names every reward with its own weight and place."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert {language for language, _ in found} == {"yaml", "python"}
    for language, block in found:
        if language == "yaml":
            load_rewards(written(tmp_path, block))
        else:
            exec(compile(block, str(PAGE), "exec"), {})
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            rows[cells[0].strip("`")] = (cells[3].strip("`"), float(cells[4]))
    assert rows == {name: (reward.at, reward.weight) for name, reward in REWARDS.items()}


def test_the_list_of_exports_is_the_truth() -> None:
    assert len(steer.rewards.__all__) == len(set(steer.rewards.__all__))
    assert all(hasattr(steer.rewards, name) for name in steer.rewards.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = steer.rewards.nonsense  # pyright: ignore[reportAttributeAccessIssue]
