"""What a stage was begun with: kept, compared, and said where it changed."""

from pathlib import Path

import pytest

from steer.errors import TrainingError
from steer.records import differences
from steer.training.stage import begun, changes, claim, keep, tokenizer_digest

SETTINGS = {"seed": 0, "train": {"steps": 4, "compile": "auto"}, "sources": [{"path": "a.txt"}]}


def other(**train: object) -> dict[str, object]:
    return {**SETTINGS, "train": {**SETTINGS["train"], **train}}  # type: ignore[dict-item]


def test_settings_may_change_until_there_is_a_checkpoint(tmp_path: Path) -> None:
    stage = tmp_path / "base"
    assert claim(stage, SETTINGS) and not begun(stage)
    assert not claim(stage, other(steps=5))
    assert claim(stage, other(steps=5))
    (stage / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    assert begun(stage) and claim(stage, other(steps=5))
    with pytest.raises(TrainingError, match=r"train.steps was 5, now it is 6. .* train into a new folder"):
        claim(stage, other(steps=6))
    assert claim(stage, other(steps=5))  # what was refused is not kept


def test_a_finished_stage_has_its_settings_too(tmp_path: Path) -> None:
    claim(tmp_path, SETTINGS)
    (tmp_path / "done.json").write_text("{}")
    with pytest.raises(TrainingError, match="seed was 0, now it is 1"):
        claim(tmp_path, {**SETTINGS, "seed": 1})


def test_a_stage_whose_settings_are_lost_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(TrainingError, match=r"settings.json, what the stage was begun with, is missing"):
        claim(tmp_path, SETTINGS)
    keep(tmp_path / "settings.json", {"seed": 0})
    with pytest.raises(TrainingError, match="sources.0.path was not there, now it is "):
        claim(tmp_path, SETTINGS)


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    keep(tmp_path / "settings.json", SETTINGS)
    assert changes(tmp_path / "settings.json", other(compile="off")) == []
    said = "sources was not there, now it is []; sources.0.path was 'a.txt', now it is not there"
    assert "; ".join(text for _, text in differences(SETTINGS, {**SETTINGS, "sources": []})) == said


def test_a_tokenizer_is_known_by_its_tokens_not_by_its_calls(tiny_llama: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    before = tokenizer_digest(tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer(["a fox", "a fox in the snow"], padding=True, truncation=True, max_length=4)
    assert tokenizer_digest(tokenizer) == before == tokenizer_digest(AutoTokenizer.from_pretrained(tiny_llama))
    tokenizer.add_tokens(["<one more>"])
    assert tokenizer_digest(tokenizer) != before
