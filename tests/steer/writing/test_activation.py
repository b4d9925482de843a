"""Activation steering: what the hook does to a layer, that it leaves, and the vectors it adds."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from steer.errors import GuidanceError, TextError
from steer.models.adapters import ROUTER, use_adapter
from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.writing.activation import (
    control_vector,
    decoder_layers,
    mean_residuals,
    middle_layer,
    steered,
    unguided_path,
    watched,
)
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import open_writer
from tests.steer.families import make_base
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import assert_near, sharpen, tiny_model

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
FAMILIES = ("llama", "mixtral", "gpt2", "gptj", "gpt_neox")


def plain(family: str, tokenizer: Path, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(make_base(family, tokenizer, folder)).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return plain(request.param, tiny_llama, tmp_path_factory.mktemp(request.param))


def vector(rows: int | None = None, *, seed: int = 0) -> Tensor:
    shape = (32,) if rows is None else (rows, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(base: Any, ids: Tensor = IDS) -> Tensor:
    return base(input_ids=ids, use_cache=False).logits


def hooks(base: Any, layer: int = 0) -> int:
    return len(decoder_layers(base)[layer]._forward_hooks)


def test_layers_are_those_that_hold_the_residual_stream(base: Any) -> None:
    layers = decoder_layers(base)
    assert len(layers) == base.config.num_hidden_layers and middle_layer(base) == 1
    with watched(base, 0) as first, watched(base, 1) as last:
        hidden = base(input_ids=IDS, use_cache=False, output_hidden_states=True).hidden_states
    assert torch.equal(first[0], hidden[1])
    norm = next(m for n, m in backbone(base).named_children() if n in ("norm", "ln_f", "final_layer_norm"))
    assert torch.allclose(norm(last[0]), hidden[-1], atol=1e-6)


def test_the_vector_is_added_to_that_layer_and_to_no_lower_one(base: Any) -> None:
    with watched(base, 0) as low, watched(base, 1) as high:
        logits(base)
        with steered(base, vector(), 1, 0.5):
            logits(base)
    assert torch.equal(low[0], low[1])
    # The watcher was there first, so it saw what came before the vector was added.
    assert torch.equal(high[0], high[1])
    with steered(base, vector(), 0, 0.5), watched(base, 0) as moved:
        logits(base)
    assert_near(moved[0] - low[0], 0.5 * vector().expand_as(low[0]), atol=1e-5)


def test_laws_of_the_hook(base: Any) -> None:
    before = logits(base)
    with steered(base, vector(), 0, 0.0):
        assert torch.equal(logits(base), before)
    with steered(base, vector(), 0, 0.5):
        assert (logits(base) - before).abs().max() > 0.01
        with steered(base, -vector(), 0, 0.5):
            assert_near(logits(base), before, atol=1e-4)
    # Each row has its own vector, and no other row's.
    rows = vector(2)
    with steered(base, rows, 0, 1.0):
        together = logits(base)
    for index in range(2):
        with steered(base, rows[index], 0, 1.0):
            assert_near(logits(base, IDS[index : index + 1])[0], together[index], atol=1e-4)


def test_nothing_is_left_behind(base: Any) -> None:
    before, own = logits(base), hooks(base)  # transformers hooks layers too
    with pytest.raises(ZeroDivisionError), steered(base, vector(), 0, 1.0), watched(base, 0):
        assert hooks(base) == own + 2
        raise ZeroDivisionError
    assert hooks(base) == own and torch.equal(logits(base), before)


def test_a_layer_that_is_not_there(base: Any) -> None:
    own = hooks(base)
    for layer in (-1, 2):
        with (
            pytest.raises(GuidanceError, match=f"no layer {layer}; expected 0 to 1"),
            steered(base, vector(), layer, 1),
        ):
            pass
    assert hooks(base) == own


def test_a_model_without_layers_cannot_be_steered(base: Any) -> None:
    class Odd(nn.Module):
        base_model_prefix, config = "inner", base.config

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

    with pytest.raises(GuidanceError, match="no list of 2 layers in Odd"):
        decoder_layers(cast(Any, Odd()))


def test_control_vectors_by_hand_and_by_law() -> None:
    wanted, others = torch.tensor([[4.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    found = control_vector(wanted, others, norm=2.0)
    # The mean of the others is [1, 1]; of the second, which is that mean, nothing is left.
    assert_near(found, torch.tensor([[3.0, -1.0], [0.0, 0.0]]) * (2 / 10**0.5), atol=1e-6)
    shift = torch.tensor([5.0, -7.0])
    assert_near(control_vector(wanted + shift, others + shift, norm=2.0), found, atol=1e-5)
    for bad in ((wanted[0], others), (wanted, others[:0]), (wanted, torch.zeros(2, 3))):
        with pytest.raises(GuidanceError, match=r"expected wanted \[n, d\]"):
            control_vector(*bad, norm=1.0)


@torch.no_grad()
@pytest.mark.parametrize("fuse", [True, False])
def test_residuals_are_the_means_over_a_texts_own_tokens(tiny_llama: Path, fuse: bool) -> None:
    model = tiny_model(tiny_llama)
    model.fuse = fuse
    texts = ["A cat sat here.", "No."]
    means, norm = mean_residuals(model, texts, 0)
    norms: list[Tensor] = []
    for text, mean in zip(texts, means, strict=True):
        embeds = torch.cat([model.head.null_soft(1), model.embed(torch.tensor([model.to_ids(text)]))], dim=1)
        with use_adapter(model.peft, ROUTER) as base:
            hidden = base(inputs_embeds=embeds, use_cache=False, output_hidden_states=True).hidden_states[1][0]
        own = hidden[model.head.null_soft(1).shape[1] :]
        assert_near(mean, own.mean(0))
        norms.append(own.norm(dim=1))
    assert norm == pytest.approx(float(torch.cat(norms).mean()), rel=1e-4)
    for bad in ([], ["A cat.", ""]):
        with pytest.raises(TextError, match="give some text"):
            mean_residuals(model, bad, 0)


@pytest.mark.parametrize("layout", ["interleaved", "minihf"])
@pytest.mark.parametrize("fuse", [True, False])
def test_the_unguided_path_is_what_writes_without_a_latent(
    tiny_llama: Path, tmp_path: Path, layout: str, fuse: bool
) -> None:
    if layout == "minihf":
        base, folder = make_minihf_folder(tmp_path, seed=7)
        model = LatentModel.from_minihf(folder, base, device="cpu")
    else:
        model = sharpen(tiny_model(tiny_llama))
    model.fuse = fuse
    width = model.peft.get_base_model().config.hidden_size

    def write(strength: float | None) -> list[int]:
        writer = open_writer(model, [[65, 66], [67]], seeds=[1, 2], spans=2, sampling=SamplingConfig())
        if strength is None:
            return [i for _ in range(2) for span in writer.write(None) for i in span.ids]
        with steered(unguided_path(model), torch.full((2, width), 9.0).cumsum(1), 1, strength):
            return [i for _ in range(2) for span in writer.write(None) for i in span.ids]

    unguided = write(None)
    assert write(0.0) == unguided and write(1.0) != unguided and write(None) == unguided
    means, _ = mean_residuals(model, ["A cat."], middle_layer(unguided_path(model)))
    assert means.shape == (1, width) and bool(means.isfinite().all())
