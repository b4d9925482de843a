"""Estimates: parameters are those of the real model, and counted memory is that of the real step."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from steer.errors import ModelNotFound, RecipeError, TrainingError
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from steer.training.estimate import meta
from steer.training.estimate.meta import _Counter, peak_of, random_model
from steer.training.estimate.plan import advice, config_of, plan, probe
from steer.training.estimate.report import Estimate, estimate_step, read_config
from steer.training.estimate.steps import steps_of
from steer.training.phases import phases, unfreeze
from steer.training.recipe import Recipe, shape_of
from tests.steer.families import make_base
from tests.steer.training.test_minihf import settings_of as minihf_settings
from tests.steer.training.test_stages import recipe_of

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")

CPU = torch.device("cpu")


def latent_of(recipe: Recipe, **changes: Any) -> Recipe:
    latent = recipe.autoencoder
    train = latent.train.model_copy(update={k: v for k, v in changes.items() if k in type(latent.train).model_fields})
    rest = {k: v for k, v in changes.items() if k in type(latent).model_fields}
    return recipe.model_copy(update={"autoencoder": latent.model_copy(update={**rest, "train": train})})


def real_of(recipe: Recipe, base: Path) -> LatentModel:
    latent = recipe.autoencoder
    sizes = {"rank": latent.lora_rank, "alpha": latent.lora_alpha, **shape_of(latent)}
    return fresh_model(base, dtype="float32", device="cpu", **sizes)


def estimate_autoencoder(recipe: Recipe, config: Any) -> Estimate:
    return estimate_step(steps_of(recipe)[-1], config, Path("."), CPU)


def minihf_of(pretrained: str = "nowhere", **rest: Any) -> Recipe:
    return Recipe.model_validate({**minihf_settings(Path(pretrained)), **rest})


# Every family in one of the layouts: the count follows the operations that run, and knows of neither.
COUNTED = {
    **dict.fromkeys(("llama_tied", "qwen2", "gpt_neox", "gemma2"), recipe_of()),
    **dict.fromkeys(("mistral_window", "gpt2"), minihf_of()),
}


@pytest.mark.parametrize("family", COUNTED)
def test_a_model_without_weights_is_counted_like_a_real_one(family: str, tiny_llama: Path, tmp_path: Path) -> None:
    recipe = COUNTED[family]
    base, latent = make_base(family, tiny_llama, tmp_path), recipe.autoencoder
    for phase in phases(recipe):
        hollow = random_model(AutoConfig.from_pretrained(base), latent, rank=latent.lora_rank)
        real = real_of(recipe, base)
        assert {n: p.shape for n, p in hollow.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
        empty, whole = (phase.prepare(model).train() for model in (hollow, real))
        counted = peak_of(empty, partial(phase.trial, empty), vocabulary=258, bf16=False)
        counter = _Counter(258)
        for parameter in real.parameters():
            counter.know(parameter)
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
                counter.know(parameter.grad)
        with counter:
            phase.trial(whole).backward()
        # Where values decide (whether rows are packed, whether a mask masks), the count takes the dearer way.
        assert counted.activations == pytest.approx(counter.fullest, rel=0.1)
        assert counted.activations >= counter.fullest
        assert counted.logits == pytest.approx(counter.fullest_logits, rel=0.1)


def test_a_step_trains_what_its_stage_trains(tiny_llama: Path) -> None:
    for recipe in (recipe_of(), minihf_of()):
        model = real_of(recipe, tiny_llama)
        for phase in phases(recipe):
            phase.prepare(model)
            found = {n for n, p in model.named_parameters() if p.requires_grad}
            unfreeze(model, phase.roles, head=phase.with_head)
            assert found == {n for n, p in model.named_parameters() if p.requires_grad} != set()
            if recipe.autoencoder.layout == "interleaved":
                assert found == {n for n, _ in model.named_parameters() if "lora_" in n or n.startswith("head.")}


@pytest.mark.parametrize(("again", "few", "more", "layers"), [(False, 2, 4, 7), (True, 1, 2, 4)])
def test_few_layers_tell_of_many(
    again: bool, few: int, more: int, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the layers kept for the backward pass, and computed again in it."""
    recipe = latent_of(recipe_of(pretrained="nowhere"), gradient_checkpointing=again)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 300}
    config = AutoConfig.for_model("llama", num_hidden_layers=layers, **sizes)
    monkeypatch.setattr(meta, "FEW", few)
    monkeypatch.setattr(meta, "MORE", more)
    short = estimate_autoencoder(recipe, config)
    monkeypatch.setattr(meta, "MORE", layers)
    whole = estimate_autoencoder(recipe, config)
    assert short.parameters == whole.parameters
    assert short.total == pytest.approx(whole.total, rel=0.01)
    activations = [found.memory["activations"] + found.memory["logits"] for found in (short, whole)]
    assert activations[0] == pytest.approx(activations[1], rel=0.1)


def test_what_a_recipe_saves_is_seen() -> None:
    recipe = recipe_of(pretrained="nowhere")

    def memory(layers: int, **changes: Any) -> dict[str, int]:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 300}
        config = AutoConfig.for_model("llama", num_hidden_layers=layers, **sizes)
        return estimate_autoencoder(latent_of(recipe, **changes), config).memory

    # What is kept of each layer shows where there are many; all else where there is one.
    assert memory(5, gradient_checkpointing=True)["activations"] < 0.6 * memory(5)["activations"]
    plain = memory(1)
    assert memory(1, batch_size=32)["activations"] > 1.8 * plain["activations"]
    assert memory(1, load_in="bfloat16")["base weights"] == plain["base weights"] / 2
    linear = 4 * 64 * 64 + 3 * 64 * 128
    rest = plain["base weights"] // 4 - linear
    assert memory(1, load_in="8bit")["base weights"] == linear + 2 * rest
    assert memory(1, load_in="4bit")["base weights"] == pytest.approx(0.516 * linear + 2 * rest, rel=0.01)
    assert memory(1, optimizer="muon")["optimizer"] < 0.6 * plain["optimizer"]


def test_a_base_from_scratch_is_estimated() -> None:
    base, _ = steps_of(recipe_of())
    found = estimate_step(base, config_of(recipe_of()), Path("."), CPU)
    assert found.parameters == found.trained and found.memory["weights"] == 4 * found.parameters
    assert found.tokens_per_step == 2 * 32
    assert found.fits
    assert [step.name for step in steps_of(recipe_of(pretrained="nowhere"))] == ["autoencoder"]


def test_a_hub_model_needs_no_more_than_its_configuration(tmp_path: Path) -> None:
    config = {"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    recipe = recipe_of(pretrained=str(tmp_path))
    found = plan(recipe, ("base", "autoencoder", "reach", "package"), tmp_path / "out", CPU)
    assert [each.estimate.stage for each in found] == ["autoencoder"]
    assert config_of(recipe).model_type == "qwen2"
    with pytest.raises(ModelNotFound, match="no configuration of a model"):
        read_config(tmp_path / "none")


def test_stages_of_a_recipe_are_planned_in_order(tmp_path: Path) -> None:
    data = recipe_of().model_dump(exclude_none=True) | {"reach": {"stories": 100, "width": 8}}
    recipe = Recipe.model_validate(data)
    found = [each.estimate for each in plan(recipe, ("base", "autoencoder", "reach"), tmp_path, CPU)]
    assert [estimate.stage for estimate in found] == ["base", "autoencoder", "reach"]
    assert found[2].disk["latents"] == 2 * 100 * 16 * 6
    assert all(estimate.total > 0 and estimate.disk_free > 0 for estimate in found)


def test_both_steps_of_minihf_and_the_draft_head_are_planned(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = minihf_of(str(tiny_llama), prior={"stories": 100, "spans": 4, "width": 8})
    planned = plan(recipe, ("autoencoder", "reach", "prior"), tmp_path, CPU)
    found = [each.estimate for each in planned]
    assert [estimate.stage for estimate in found] == ["autoencoder/decoder", "autoencoder/router", "prior"]
    decoder, router, prior = found
    assert decoder.trained > router.trained and decoder.memory["trained weights"] == router.memory["trained weights"]
    assert (decoder.tokens_per_step, router.tokens_per_step) == (2 * 8, 2 * 16)
    assert (decoder.positions_per_step, router.positions_per_step) == (2 * 23, 2 * 32)
    assert "package" not in decoder.disk and router.disk["package"] > 0
    # The state: as wide as the base, and the latent of the last span.
    assert prior.disk["latents"] == 2 * 100 * 4 * (config_of(recipe).hidden_size + 2 * 6)
    *both, short = probe(planned, CPU)
    assert short is None and all(measured is not None and measured.seconds > 0 for measured in both)


def test_a_recipe_that_goes_on_has_the_base_of_the_first(tmp_path: Path) -> None:
    import yaml

    first = recipe_of().model_dump(exclude_none=True)
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(first), encoding="utf-8")
    second = Recipe.model_validate({**{k: v for k, v in first.items() if k != "base"}, "continues": "first.yaml"})
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump(second.model_dump(exclude_none=True)), encoding="utf-8")
    assert config_of(second, [Recipe.model_validate(first)]).hidden_size == 32
    (earlier, *_), own = (
        plan(second, (), tmp_path, CPU, path=path),
        plan(second, ("autoencoder",), tmp_path, CPU, path=path),
    )
    assert earlier.config.hidden_size == own[-1].config.hidden_size == 32
    changed = second.model_dump(exclude_none=True)
    changed["autoencoder"]["z_dim"] += 1
    path.write_text(yaml.safe_dump(changed), encoding="utf-8")
    with pytest.raises(RecipeError, match="autoencoder.z_dim is 7 in second.yaml and 6 in first.yaml"):
        plan(second, (), tmp_path, CPU, path=path)
    with pytest.raises(RecipeError, match="names no base"):
        config_of(second)


def test_rounds_before_are_planned_and_equal_ones_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    first = recipe_of(steps=2).model_dump(exclude_none=True)
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(first), encoding="utf-8")
    settings = {k: v for k, v in recipe_of(steps=5).model_dump(exclude_none=True).items() if k != "base"}
    second = Recipe.model_validate(settings | {"continues": "first.yaml", "reach": {"stories": 100, "width": 8}})
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump(second.model_dump(exclude_none=True)), encoding="utf-8")
    found = plan(second, ("autoencoder", "reach"), tmp_path / "out", CPU, path=path)
    stages = [(each.estimate.before, each.estimate.stage, each.estimate.steps) for each in found]
    assert stages == [
        ("first.yaml", "base", 2),
        ("first.yaml", "autoencoder", 2),
        (None, "autoencoder", 5),
        (None, "reach", second.reach.steps if second.reach else 0),
    ]
    runs = []
    monkeypatch.setattr("steer.training.estimate.plan.measure", lambda step, *args: runs.append(step.name))
    probe(found, CPU)
    assert runs == ["base", "autoencoder"]


def test_advice_names_the_largest_parts() -> None:
    def of(**memory: int) -> Estimate:
        return Estimate("autoencoder", "cpu", 1, 1, 1, 1, 1, memory, 10, {}, 0)

    big = of(**{"base weights": 100, "activations": 50, "optimizer": 1})
    assert not big.fits
    assert "load_in" in advice(big)[0] and "gradient_checkpointing" in advice(big)[1]
    assert of(activations=1).fits


def test_a_probe_runs_steps(tmp_path: Path) -> None:
    recipe = recipe_of()
    for measured in probe(plan(recipe, ("base", "autoencoder"), tmp_path, CPU), CPU):
        assert measured is not None and measured.seconds > 0 and measured.memory > 2**20
    narrow = latent_of(recipe_of(), load_in="4bit")
    with pytest.raises(TrainingError, match="4bit cannot be probed"):
        probe(plan(narrow, ("autoencoder",), tmp_path, CPU), CPU)
