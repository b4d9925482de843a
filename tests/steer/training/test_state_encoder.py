"""The stage with a state encoder: fitted, trained, resumed, packaged; the fit against plain linear algebra."""

from pathlib import Path

import pytest
import torch

from steer.errors import TrainingError
from steer.models.adapters import ROUTER
from steer.models.checkpoint import STATES
from steer.models.latent_model import LatentModel
from steer.training.defaults import default_recipe, write_recipe
from steer.training.pipeline import run_recipe
from steer.training.recipe import LatentRecipe, Recipe
from steer.training.state_encoder import scaled_axes
from tests.steer.training.test_any_base import TRAIN, stories

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")

STATE_ENCODER = {"parts": 2, "layer": 1, "embedding_axes": 3, "layer_axes": 2, "spans": 60}


def recipe_on(base: Path, folder: Path, *, steps: int = 2, **changes: object) -> Recipe:
    data = default_recipe(str(base), [stories(folder)], 10_000).model_dump(exclude_none=True)
    data["data"]["validation_share"] = 0.2
    shape = {"span_tokens": 8, "spans": 2, "context_lengths": [8], "max_context": 40, "z_dim": 10, "soft_tokens": 3}
    data["autoencoder"] |= shape | {"lora_rank": 2, "lora_alpha": 2, "noise": 0.1, "beta": 0.0}
    data["autoencoder"] |= {"state_encoder": STATE_ENCODER, **changes}
    train = {**TRAIN, "steps": steps, "batch_size": 4, "learning_rate": 1e-3, "head_learning_rate": 1e-4}
    data["autoencoder"]["train"] = train
    return Recipe.model_validate(data)


def train(recipe: Recipe, out: Path) -> None:
    """Run the stage of a recipe, whose text lies beside `out`."""
    write_recipe(recipe, out / "recipe.yaml", "A test.")
    run_recipe(out / "recipe.yaml", out, out.parent, stages=("autoencoder",))


def test_it_is_fitted_and_the_router_alone_is_trained(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = recipe_on(tiny_llama, tmp_path)
    train(recipe, tmp_path / "out")
    model = LatentModel.from_pretrained(tmp_path / "out" / "autoencoder" / "model", device="cpu")
    assert set(model.peft.peft_config) == {ROUTER}
    assert not (tmp_path / "out" / "autoencoder" / "model" / "encoder").exists()
    latents = model.encode(stories(tmp_path).read_text().splitlines()[::2], long="mean")
    assert latents.shape[1] == 10 and float((latents[0] - latents[1]).abs().max()) > 0.01
    assert 0.05 < float(latents.pow(2).mean()) < 20, "numbers of size one"
    moved = [n for n, p in model.peft.named_parameters() if "lora_B" in n and bool(p.any())]
    assert moved and all(".router." in name for name in moved)
    identity = model.latent_config.encoder_id
    model.save_pretrained(tmp_path / "again")
    again = LatentModel.from_pretrained(tmp_path / "again", device="cpu")
    assert again.latent_config.encoder_id == identity and torch.equal(again.encode("It."), model.encode("It."))
    # What the router learns changes no latent, so stores stay good.
    again.head.w_d.weight.data.mul_(2)
    again.save_pretrained(tmp_path / "trained-on")
    assert LatentModel.from_pretrained(tmp_path / "trained-on").latent_config.encoder_id == identity


def test_untrained_it_tells_one_part_from_another(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = recipe_on(tiny_llama, tmp_path, steps=1)
    train(recipe, tmp_path / "out")
    model = LatentModel.from_pretrained(tmp_path / "out" / "autoencoder" / "model", device="cpu")
    soft = model.head.w_d.weight.detach().view(3, -1, 2, 5)
    size = soft.pow(2).mean((1, 3)).sqrt()
    assert size[0].max() < 0.1 * size[1, 0], "a fence without a latent"
    assert size[1, 1] < 0.1 * size[1, 0] and size[2, 0] < 0.1 * size[2, 1], "each of its own part"


def test_a_stage_that_goes_on_keeps_its_axes(tiny_llama: Path, tmp_path: Path) -> None:
    train(recipe_on(tiny_llama, tmp_path), tmp_path / "a")
    stage = tmp_path / "a" / "autoencoder"
    kept = (stage / STATES).read_bytes()
    (stage / "done.json").unlink()
    train(recipe_on(tiny_llama, tmp_path), tmp_path / "a")
    assert (stage / STATES).read_bytes() == kept


def test_axes_are_principal_and_scaled() -> None:
    rows = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 5, 3, 1, 0.5, 0.1]) + 4
    mean, axes, told = scaled_axes(rows, 3, 0.5)
    numbers = (rows - mean) @ axes.T
    covariance = numbers.T @ numbers / len(rows)
    assert torch.allclose(covariance, covariance.diag().diag(), atol=1e-3)
    assert float(numbers.pow(2).mean()) == pytest.approx(1, abs=1e-4)
    assert float((covariance[0, 0] / covariance[1, 1]).sqrt()) == pytest.approx((9 / 5) ** 0.5, rel=0.1)
    assert told == pytest.approx((81 + 25 + 9) / (81 + 25 + 9 + 1.26), abs=0.01)
    with pytest.raises(TrainingError, match="6 axes were asked of 500 parts of width 6"):
        scaled_axes(rows, 6, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"z_dim": 11}, "set z_dim: 10"), ({"soft_tokens": 1}, "set soft_tokens: 3")],
)
def test_widths_that_do_not_fit_are_told(changes: dict[str, int], message: str) -> None:
    section = {"z_dim": 10, "soft_tokens": 3, "state_encoder": STATE_ENCODER, "train": {"steps": 1}}
    with pytest.raises(ValueError, match=message):
        LatentRecipe.model_validate(section | changes)
