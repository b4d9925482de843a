"""BigVAE's layout from a recipe to a model that loads, resumes, is measured and writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import steer
from steer.errors import LatentError, RecipeError, TrainingError
from steer.evaluation.evaluate import latent_figures
from steer.models.latent_model import LatentModel
from steer.models.minihf import save_minihf
from steer.training import autoencoder as autoencoder_stage
from steer.training.autoencoder import latent_settings, train_autoencoder
from steer.training.latent_trainer import LatentTrainer
from steer.training.pipeline import run_recipe
from steer.training.recipe import MiniHFRecipe, Recipe, load_recipe
from steer.training.stage import is_done, keep
from tests.steer.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")

TRAIN = {"steps": 4, "batch_size": 2, "bf16": False, "compile": "off", "eval_every": 100, "save_every": 2}
STORIES = [
    f"The {('fox', 'dog', 'cat', 'hen')[i % 4]} saw {i} birds. It ran home! Was it glad? It was." for i in range(90)
]


def settings_of(base: Path, **changes: Any) -> dict[str, Any]:
    autoencoder = {
        "layout": "minihf",
        "span_tokens": 8,
        "z_dim": 6,
        "max_context": 32,
        "lora_rank": 2,
        "lora_alpha": 2,
        "context_lengths": [4, 8],
        "beta_steps": 3,
        "train": {**TRAIN, "warmup_steps": 0},
        "router": {**TRAIN, "warmup_steps": 0},
    }
    data = {"sources": [{"path": "stories.txt"}], "validation_share": 0.2}
    return {"name": "tiny", "data": data, "pretrained": str(base), "autoencoder": {**autoencoder, **changes}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "stories.txt").write_text("\n<|endoftext|>\n".join(STORIES))
    return folder


@pytest.fixture(scope="module")
def run(tiny_llama: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    (out / "recipe.yaml").write_text(json.dumps(settings_of(tiny_llama)))
    assert run_recipe(out / "recipe.yaml", out, data, stages=("autoencoder",)) == out / "autoencoder" / "model"
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_a_recipe_of_this_layout_gives_a_model_that_loads_and_writes(run: Path) -> None:
    model = LatentModel.from_pretrained(run / "autoencoder" / "model", device="cpu")
    assert (model.latent_config.layout, model.span_tokens, model.latent_config.z_dim) == ("minihf", 8, 6)
    done = json.loads((run / "autoencoder" / "done.json").read_text())
    assert model.latent_config.latent_norm == done["eval_latent_norm"] > 0
    pull = steer.Pull(model.encode("dogs"), steer.make_schedule("bridge", 2))
    written = steer.write_guided(model, ["The fox"], pulls=[pull], spans=2, guidance_scale=1.5)[0]
    assert len(written.ids) == 16
    figures = latent_figures(model, STORIES, rows=4, spans=2, context=8)
    assert 0 < figures["nll_own"] != figures["nll_wrong"]


def test_the_first_step_trains_encoder_and_decoder_the_second_the_router_alone(run: Path) -> None:
    first, last = weights(run / "autoencoder" / "decoder" / "model"), weights(run / "autoencoder" / "model")
    for name, tensor in first.items():
        router = name.startswith("router")
        assert torch.equal(tensor, last[name]) != (router and "lora_B" in name) or (router and "lora_A" in name), name
        if "lora_B" in name:
            assert bool(tensor.any()) != router, name


def test_mini_hfs_files_hold_the_same_model(run: Path, tiny_llama: Path) -> None:
    folder = run / "autoencoder" / "minihf"
    assert set(load_file(folder / "vae.safetensors")) == {
        f"{m}.{p}" for m in ("f", "w_e", "w_d") for p in ("weight", "bias")
    }
    one = LatentModel.from_minihf(folder, base=tiny_llama, span_tokens=8, device="cpu")
    two = LatentModel.from_pretrained(run / "autoencoder" / "model", device="cpu")
    ids, z = torch.arange(3, 11)[None], torch.randn(1, 6)
    with torch.no_grad():
        assert torch.equal(one.router_logits(ids, z, ids), two.router_logits(ids, z, ids))
        assert torch.equal(one.encode_ids(ids.tolist()), two.encode_ids(ids.tolist()))
    with pytest.raises(LatentError, match="no model of layout 'interleaved'"):
        save_minihf(tiny_model(tiny_llama), run / "no")


class Interrupted(BaseException):
    """Stands for a killed process: not an `Exception`, so that nothing on the way can take it for a failure."""


@pytest.mark.parametrize("calls", [3, 7])
def test_each_step_resumes_to_the_same_weights(
    run: Path, tiny_llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    recipe = Recipe.model_validate(settings_of(tiny_llama))
    inner, seen = LatentTrainer.training_step, []

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        if len(seen) > calls:
            raise Interrupted
        return inner(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(LatentTrainer, "training_step", training_step)
        train_autoencoder(recipe, tmp_path, data, tiny_llama)
    assert is_done(tmp_path / "autoencoder" / "decoder") == (calls == 7) and not is_done(tmp_path / "autoencoder")
    train_autoencoder(recipe, tmp_path, data, tiny_llama)
    want, got = weights(run / "autoencoder" / "model"), weights(tmp_path / "autoencoder" / "model")
    assert want.keys() == got.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-5, rtol=0, msg=name)


def test_a_first_step_of_other_shapes_is_refused(run: Path, tiny_llama: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "autoencoder" / "decoder", tmp_path / "autoencoder" / "decoder")
    for change in ({"lora_rank": 3}, {"z_dim": 5}):
        recipe = Recipe.model_validate(settings_of(tiny_llama, **change))
        keep(tmp_path / "autoencoder" / "settings.json", latent_settings(recipe))
        with pytest.raises(TrainingError, match="does not fit the recipe .*train into a new folder"):
            train_autoencoder(recipe, tmp_path, data, tiny_llama)


def test_what_is_done_is_not_trained_again(
    run: Path, tiny_llama: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder_stage, "fresh_model", None)
    recipe = Recipe.model_validate(settings_of(tiny_llama))
    assert train_autoencoder(recipe, run, data, "no base is needed") == run / "autoencoder" / "model"


def test_mistakes_of_this_layout_are_named_with_their_place(tmp_path: Path, tiny_llama: Path) -> None:
    for change, place in (
        ({"soft_tokens": 4}, "autoencoder.soft_tokens: unknown key"),
        ({"router": {}}, "autoencoder.router.steps: this key is missing"),
        ({"layout": "other"}, "autoencoder: .*other.*'interleaved', 'minihf'"),
    ):
        (tmp_path / "recipe.yaml").write_text(json.dumps(settings_of(tiny_llama, **change)))
        with pytest.raises(RecipeError, match=rf"\A.*: {place}"):
            load_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_text(
        json.dumps({**settings_of(tiny_llama), "pretrained": None, "continues": "a.yaml"})
    )
    with pytest.raises(RecipeError, match="layout minihf cannot continue"):
        load_recipe(tmp_path / "recipe.yaml")


def test_the_defaults_are_bigvaes() -> None:
    recipe = MiniHFRecipe.model_validate({"layout": "minihf", "train": {"steps": 3}, "router": {"steps": 4}})
    assert (recipe.span_tokens, recipe.z_dim, recipe.lora_rank, recipe.lora_alpha) == (64, 768, 32, 8)
    assert (recipe.beta, recipe.beta_steps, recipe.context_drop) == (0.1, 50_000, 0.5)
    assert (recipe.steps, recipe.soft_tokens) == (7, 1)
