"""Recipes: what is read, and how each mistake is named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from steer.errors import RecipeError, TextError
from steer.training.recipe import load_recipe

GOOD: dict[str, Any] = {
    "name": "tiny",
    "data": {"sources": [{"path": "a.txt"}]},
    "base": {"architecture": {"model_type": "llama"}, "train": {"steps": 3}},
    "autoencoder": {"train": {"steps": 3}},
}


def write(folder: Path, data: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_a_recipe_is_read_with_its_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.base is not None
    assert (recipe.base.vocab_size, recipe.base.train.steps, recipe.autoencoder.span_tokens) == (4096, 3, 32)
    assert recipe.data.sources[0].repeat == 1
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe


def test_every_recipe_in_the_repository_is_valid() -> None:
    recipes = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        load_recipe(path)


def test_either_a_base_to_train_or_a_pretrained_one(tmp_path: Path) -> None:
    pretrained = {**{k: v for k, v in GOOD.items() if k != "base"}, "pretrained": "some/model"}
    assert load_recipe(write(tmp_path, pretrained)).pretrained == "some/model"
    for wrong in ({**GOOD, "pretrained": "some/model"}, {k: v for k, v in GOOD.items() if k != "base"}):
        with pytest.raises(RecipeError, match="give exactly one of `base` .* and `pretrained`"):
            load_recipe(write(tmp_path, wrong))


def test_what_continues_another_has_its_base(tmp_path: Path) -> None:
    alone = {k: v for k, v in GOOD.items() if k != "base"} | {"continues": "first.yaml"}
    assert load_recipe(write(tmp_path, alone)).base is None
    assert load_recipe(write(tmp_path, GOOD | {"continues": "first.yaml"})).base is not None
    with pytest.raises(RecipeError, match="leave out `pretrained`"):
        load_recipe(write(tmp_path, alone | {"pretrained": "some/model"}))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"spam": 1}, "spam: unknown key; expected one of name, "),
        ({"autoencoder": {"train": {"steps": 3, "lr": 1}}}, "autoencoder.train.lr: unknown key"),
        ({"autoencoder": {"train": {}}}, "autoencoder.train.steps: this key is missing"),
        ({"autoencoder": {"train": {"steps": 0}}}, "autoencoder.train.steps: .*greater than 0"),
        (
            {"autoencoder": {"train": {"steps": 3, "optimizer": "sgd"}}},
            "autoencoder.train.optimizer: .*'adamw' or 'muon'",
        ),
        ({"autoencoder": {"train": {"steps": 3}, "context_lengths": []}}, "autoencoder.context_lengths"),
        ({"data": {"sources": []}}, "data.sources"),
        ({"data": {"sources": [{"path": "a", "repeat": 0}]}}, "data.sources.0.repeat"),
        ({"data": {"sources": [{"path": "a"}], "validation_share": 0.5}}, "data.validation_share"),
        ({"base": {"train": {"steps": 1}}}, "base.architecture: this key is missing"),
        ({"name": None}, "name: "),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    with pytest.raises(RecipeError, match=rf"\A.*recipe.yaml:\d+: .*{place}.*\Z"):
        load_recipe(write(tmp_path, {**GOOD, **change}))


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, {**GOOD, "seed": "x", "eggs": 1, "spam": 2}))
    lines = str(caught.value).splitlines()
    assert [next(name for name in ("seed", "eggs", "spam") if f" {name}: " in line) for line in lines] == [
        "seed",
        "eggs",
        "spam",
    ]


@pytest.mark.parametrize("text", ["", "just text", "- 1\n- 2\n", "3"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match="expected a mapping with name, data and autoencoder"):
        load_recipe(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1", ":1: not valid YAML"),
        ("a: !!python/object:os.system {}", ":1: tags .* are not supported"),
        ("name: a\nname: b\n", ":2: name: this key stands here twice"),
        ("a: &a [1]\nb: [*a, *a]\n", ":2: aliases .* are not supported"),
    ],
)
def test_traps_of_yaml_are_refused_with_their_line(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe(write(tmp_path, text))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot read recipe .*missing.yaml: No such file"):
        load_recipe(tmp_path / "missing.yaml")
    (tmp_path / "recipe.yaml").write_bytes(b"name: na\xefve")
    with pytest.raises(TextError, match="is not UTF-8"):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(TextError, match="cannot read recipe"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(("word", "meaning"), [("off", "off"), ("on", "on"), ("auto", "auto"), ("false", "off")])
def test_yaml_reads_off_as_a_truth_value(word: str, meaning: str, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    text = path.read_text().replace("steps: 3", f"steps: 3\n    compile: {word}")
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.base is not None and recipe.base.train.compile == meaning


def test_a_misspelt_setting_is_recognised(tmp_path: Path) -> None:
    latent = {"lora_rnk": 8, "nothing_like_it": 1, "train": {"steps": 3}}
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, GOOD | {"autoencoder": latent}))
    lines = str(caught.value).splitlines()
    assert any("lora_rnk" in line and line.endswith("did you mean 'lora_rank'?") for line in lines)
    assert any("nothing_like_it" in line and "did you mean" not in line for line in lines)
