"""Layers that are computed again in the backward pass give the gradients of layers that are kept.

Encoder and router share the layers, so each must be computed again under the adapter it was computed with.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.errors import LatentError
from steer.models.adapters import ENCODER, ROUTER, switch_adapter, use_adapter
from steer.models.base import backbone
from steer.training.phases import unfreeze
from tests.steer.families import make_base
from tests.steer.tiny import tiny_model
from tests.steer.training.objectives.test_interleaved import batch_of, loss_of, objective_of

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")

FAMILIES = ("llama", "mistral_window", "qwen2", "qwen3", "gemma", "gemma2", "gpt2", "gpt_neox")


def gradients(base: Path, *, again: bool, isolated: float) -> dict[str, Tensor]:
    model = tiny_model(base).train()
    unfreeze(model, (ENCODER, ROUTER))
    objective = objective_of(model, null_prob=0.3, isolated_prob=isolated)
    if again:
        objective.activation_checkpointing_enable()
    torch.manual_seed(0)  # of dropout, which some families have
    loss_of(objective, batch_of(rows=4), 0.1)["loss"].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_agree_with_and_without_checkpointing(family: str, tiny_llama: Path, tmp_path: Path) -> None:
    base = make_base(family, tiny_llama, tmp_path / family)
    for isolated in (0.0, 1.0):
        kept = gradients(base, again=False, isolated=isolated)
        again = gradients(base, again=True, isolated=isolated)
        assert kept.keys() == again.keys()
        assert any(".encoder." in name for name in kept) and any(".router." in name for name in kept)
        for name, gradient in kept.items():
            torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_layers_are_not_kept_where_they_are_computed_again(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama).train()
    unfreeze(model, (ENCODER, ROUTER))
    objective, sizes = objective_of(model), []
    for again in (False, True):
        if again:
            objective.activation_checkpointing_enable()
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss_of(objective, batch_of(rows=4))
        sizes.append(sum(kept))
    assert sizes[1] < sizes[0] / 2


def test_a_switched_adapter_stays_and_gradients_flags_do_not_move(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama)
    unfreeze(model, (ENCODER, ROUTER))
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    embeds = model.embed(torch.tensor([[1, 2, 3]]))
    model.fuse = False
    wanted = {name: model.role_logits(name, embeds) for name in (ENCODER, ROUTER)}
    for name in (ENCODER, ROUTER, ROUTER):
        switch_adapter(model.peft, name)
        assert torch.equal(model.peft.get_base_model()(inputs_embeds=embeds, use_cache=False).logits, wanted[name])
    with use_adapter(model.peft, None):  # the bare base
        switch_adapter(model.peft, ENCODER)
        assert torch.equal(model.peft.get_base_model()(inputs_embeds=embeds, use_cache=False).logits, wanted[ENCODER])
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    with pytest.raises(LatentError, match="no adapter 'nobody'"):
        switch_adapter(model.peft, "nobody")


def test_a_compiled_backbone_is_not_compiled_where_it_is_computed_again(tiny_llama: Path) -> None:
    objective = objective_of(tiny_model(tiny_llama), compiled=True)
    body = backbone(objective.model.peft.get_base_model())
    assert objective._run[0] is not body
    objective.activation_checkpointing_enable()
    assert objective._run[0] is body
