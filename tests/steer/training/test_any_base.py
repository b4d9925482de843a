"""A base that was not made here, of each family: from its folder through all of the stage to a package that loads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from steer.errors import ModelNotFound, RecipeError, TrainingError, UnsupportedBase
from steer.evaluation.evaluate import latent_figures
from steer.models.adapters import ENCODER, ROUTER
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from steer.training import pipeline
from steer.training.autoencoder import train_autoencoder
from steer.training.defaults import SIZES, default_recipe, is_untouched, on_base, size_of, write_recipe
from steer.training.latent_trainer import LatentTrainer
from steer.training.phases import unfreeze
from steer.training.pipeline import run_recipe
from steer.training.recipe import Recipe, load_recipe
from tests.steer.families import make_base
from tests.steer.training.objectives.test_interleaved import batch_of, loss_of, objective_of
from tests.steer.training.test_stages import TRAIN, recipe_of

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")

CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral_window": {"gradient_checkpointing": True},
    "qwen2": {"load_in": "bfloat16"},
    "gpt2": {"gradient_checkpointing": True, "load_in": "bfloat16", "bf16": True},
    "gpt_neox": {"optimizer": "muon"},
    "gemma2": {"bf16": True},
}


def stories(folder: Path) -> Path:
    names = ("fox", "dog", "cat", "hen")
    texts = [f"The {names[i % 4]} saw {i} birds. It ran. Was it glad? It was!" for i in range(60)]
    path = folder / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    return path


def small(recipe: Recipe, case: dict[str, Any], steps: int = 2) -> Recipe:
    """A recipe with the sizes of a test in place of its own."""
    data = recipe.model_dump(exclude_none=True)
    train = {name: value for name, value in case.items() if name != "load_in"}
    data["data"]["validation_share"] = 0.2
    data["autoencoder"] |= {"span_tokens": 16, "spans": 2, "context_lengths": [8], "max_context": 40, "z_dim": 6}
    data["autoencoder"] |= {
        "lora_rank": 2,
        "lora_alpha": 2,
        "soft_tokens": 2,
        "load_in": case.get("load_in", "float32"),
    }
    data["autoencoder"]["train"] = {**TRAIN, "steps": steps, "batch_size": 4, "learning_rate": 1e-2, **train}
    return Recipe.model_validate(data)


@pytest.mark.parametrize("family", CASES)
def test_a_base_of_each_family_becomes_a_package(
    family: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures(model: LatentModel, texts: list[str], **_: Any) -> dict[str, Any]:
        return {"latents": latent_figures(model, texts, rows=8, spans=2)}

    # All figures are tested elsewhere, and take longer than all the rest.
    monkeypatch.setattr(pipeline, "evaluate", figures)
    base = make_base(family, tiny_llama, tmp_path / family)
    recipe = small(default_recipe(str(base), [stories(tmp_path)], 10_000), CASES[family])
    path = tmp_path / "out" / "recipe.yaml"
    write_recipe(recipe, path, "A test.")
    assert load_recipe(path) == recipe
    folder = run_recipe(path, tmp_path / "out", tmp_path, stages=("autoencoder", "reach", "package"))
    assert folder.name == f"{family}-latent"
    model = LatentModel.from_pretrained(folder, device="cpu")
    assert model.encode(["a fox", "dogs ran"]).shape == (2, 6)
    config = json.loads((folder / "steer_config.json").read_text(encoding="utf-8"))
    assert config["base"]["name"] == str(base) and not (folder / "base").exists()
    moved = [n for n, p in model.peft.named_parameters() if "lora_B" in n and bool(p.any())]
    assert any(".encoder." in name for name in moved) and any(".router." in name for name in moved)
    trained = AutoModelForCausalLM.from_pretrained(base)
    for name, tensor in model.bare_copy().state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name]), name  # the base is as it was


def test_a_frozen_base_in_bfloat16_has_adapters_in_float32_and_nearly_the_same_loss(tiny_llama: Path) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        model = fresh_model(tiny_llama, span_tokens=8, z_dim=6, soft_tokens=2, rank=4, alpha=4, dtype=dtype).train()
        unfreeze(model, (ENCODER, ROUTER))
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert model.dtype == getattr(torch, dtype)
        loss = loss_of(objective_of(model), batch_of())["loss"]
        loss.backward()
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


# Recipes by size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "z_dim", "rank"),
    [(6e6, 256, 64), (135e6, 256, 64), (360e6, 512, 32), (3e9, 512, 32), (7e9, 768, 32)],
)
def test_settings_go_by_the_size_of_the_base(parameters: float, z_dim: int, rank: int) -> None:
    recipe = default_recipe("owner/Base-1", [Path("/a.txt")], int(parameters))
    latent = recipe.autoencoder
    assert (recipe.name, recipe.pretrained) == ("Base-1-latent", "owner/Base-1")
    assert (latent.z_dim, latent.lora_rank) == (z_dim, rank)
    assert latent.train.gradient_checkpointing == (parameters >= 1e9)
    assert default_recipe("b", [Path("a")], int(parameters), steps=7).autoencoder.train.steps == 7


def test_the_rows_of_sizes_rise_and_rates_fall() -> None:
    assert [size.below for size in SIZES] == sorted({size.below for size in SIZES})
    rates = [size.learning_rate for size in SIZES]
    assert rates == sorted(rates, reverse=True)
    assert size_of(10**12) is SIZES[-1]


def test_a_short_table_of_positions_shortens_contexts() -> None:
    latent = default_recipe("b", [Path("a")], 10, positions=300).autoencoder
    assert (latent.max_context, latent.context_lengths) == (84, [24, 64])
    with pytest.raises(RecipeError, match="takes 128 positions, too few for 6 spans"):
        default_recipe("b", [Path("a")], 10, positions=128)


def test_a_recipe_on_another_base() -> None:
    recipe = recipe_of()
    other = on_base(recipe, "owner/other", [Path("/more.txt")])
    assert (other.base, other.pretrained) == (None, "owner/other")
    assert [source.path for source in other.data.sources] == ["/more.txt"]
    assert other.autoencoder == recipe.autoencoder
    assert on_base(recipe, None, [Path("/more.txt")]).base == recipe.base
    going_on = recipe.model_copy(update={"continues": "first.yaml"})
    with pytest.raises(RecipeError, match="continues another recipe"):
        on_base(going_on, "owner/other")


# What cannot serve ----------------------------------------------------------------------------------------------------


def test_a_base_without_a_tokenizer_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    base = make_base("llama", tiny_llama, tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelNotFound, match="no tokenizer that loads.*copy its tokenizer.json"):
        fresh_model(base)


def test_a_tokenizer_made_of_nothing_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    """Transformers makes one for some families where all its files are missing: each text has no tokens."""
    base = make_base("qwen2", tiny_llama, tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UnsupportedBase, match="makes nothing of 'Once upon a time.*tokenizer.json"):
        fresh_model(base)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eos_token": None}, "has no end token.*set `eos_token`"),
        ({"extra": True}, "258 .*embeddings|embeddings for 258"),
    ],
)
def test_a_tokenizer_that_does_not_fit_says_so(
    change: dict[str, Any], message: str, tiny_llama: Path, tmp_path: Path
) -> None:
    base = make_base("llama", tiny_llama, tmp_path)
    if "extra" in change:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["<|one|>", "<|two|>"])
        tokenizer.save_pretrained(base)
    else:
        path = base / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) | change
        path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}), encoding="utf-8")
    with pytest.raises(UnsupportedBase, match=message):
        fresh_model(base)


def test_a_written_recipe_names_its_settings(tmp_path: Path) -> None:
    recipe = default_recipe("owner/base", [Path("/a.txt")], 10**7)
    write_recipe(recipe, tmp_path / "run" / "recipe.yaml", "A test.")
    text = (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    assert text.startswith("# A test. (")
    assert is_untouched(tmp_path / "run" / "recipe.yaml")
    (tmp_path / "run" / "recipe.yaml").write_text(text.replace("seed: 0", "seed: 1"), encoding="utf-8")
    assert not is_untouched(tmp_path / "run" / "recipe.yaml")
    assert yaml.safe_load(text)["autoencoder"]["beta"] == recipe.autoencoder.beta


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_memory_that_runs_out_says_what_to_lower(
    error: Exception, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(LatentTrainer, "training_step", training_step)
    stories(tmp_path)
    recipe = small(recipe_of(pretrained=str(tiny_llama)), {})
    with pytest.raises(TrainingError, match="out of memory; lower train.batch_size"):
        train_autoencoder(recipe, tmp_path / "out", tmp_path, tiny_llama)
