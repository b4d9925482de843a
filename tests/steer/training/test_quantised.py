"""Bases in fewer bits: what is asked of the library, and, where bitsandbytes is there, adapters trained on them."""

import importlib.util
from pathlib import Path

import pytest
import torch

from steer.errors import UnsupportedBase
from steer.models.latent_model import LatentModel
from steer.models.quantization import load_options
from steer.training.autoencoder import train_autoencoder
from steer.training.recipe import Recipe
from tests.steer.families import make_base
from tests.steer.training.test_any_base import small, stories
from tests.steer.training.test_stages import recipe_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:::(transformers|accelerate|torch|peft|bitsandbytes)", "ignore:MatMul8bitLt"
)
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes, the extra `quantised`"
)


def test_types_that_need_no_library() -> None:
    assert load_options("float32") == {"dtype": "float32"}
    assert load_options("bfloat16", torch.float32) == {"dtype": "bfloat16"}
    with pytest.raises(ValueError, match="load_in '2bit' is unknown; expected float32"):
        load_options("2bit")  # type: ignore[arg-type]


def test_without_bitsandbytes_a_quantised_base_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedBase, match=r"4bit needs bitsandbytes: `pip install 'steer\[quantised\]'`"):
        load_options("4bit")


@needs_bitsandbytes
@pytest.mark.parametrize("load_in", ["4bit", "8bit"])
def test_adapters_are_trained_on_a_quantised_base(load_in: str, tiny_llama: Path, tmp_path: Path) -> None:
    base = make_base("llama_wide", tiny_llama, tmp_path / "base")
    case = {"load_in": load_in, "gradient_checkpointing": True}
    stories(tmp_path)
    recipe: Recipe = small(recipe_of(pretrained=str(base)), case, steps=3)
    folder = train_autoencoder(recipe, tmp_path / "out", tmp_path, base)
    options = load_options(load_in, torch.float32)  # type: ignore[arg-type]
    model = LatentModel.from_pretrained(folder, base=base, device="cpu", **options)
    kinds = {type(module).__name__ for module in model.peft.modules()}
    assert ("Linear4bit" if load_in == "4bit" else "Linear8bitLt") in kinds
    assert not model.fuse
    moved = [n for n, p in model.peft.named_parameters() if "lora_B" in n and bool(p.any())]
    assert any(".encoder." in name for name in moved) and any(".router." in name for name in moved)
    whole = LatentModel.from_pretrained(folder, base=base, device="cpu")  # the same adapters on the whole base
    near = torch.nn.functional.cosine_similarity(model.encode(["a fox ran"]), whole.encode(["a fox ran"]))
    assert near > 0.8
