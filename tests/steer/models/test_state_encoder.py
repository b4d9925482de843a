"""The encoder that reads states of the frozen base, against its formula written out row by row."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM

from steer.errors import CheckpointError, UnsupportedBase
from steer.models.adapters import ENCODER
from steer.models.base import load_base
from steer.models.config import CONFIG_NAME, BaseIdentity, LatentConfig
from steer.models.layers import lower_layers
from steer.models.state_encoder import EPS, StateEncoder, StateEncoderConfig, part_members
from tests.steer.tiny import assert_near

CONFIG = StateEncoderConfig(parts=3, layer=1, embedding_axes=2, layer_axes=3, begin=7)


def encoder_for(hidden: int, vocab: int) -> StateEncoder:
    """All of its tensors random, as if fitted."""
    generator = torch.Generator().manual_seed(3)
    encoder = StateEncoder(CONFIG, hidden, vocab)
    for tensor in encoder.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return encoder


@torch.no_grad()
def by_the_formula(encoder: StateEncoder, base: Any, row: list[int]) -> Tensor:
    """One row, by the whole base and loops."""
    table = base.get_input_embeddings()
    ids = torch.tensor([[CONFIG.begin, *row]])
    states = base(ids, output_hidden_states=True).hidden_states[CONFIG.layer][0, 1:]
    states = states / (states.pow(2).mean(-1, keepdim=True) + EPS).sqrt()
    embeds, weight = table(ids)[0, 1:], encoder.token_weight[row]
    out = []
    for part in range(CONFIG.parts):
        members = [t for t in range(len(row)) if CONFIG.parts * t // len(row) == part]
        members = members or [min(len(row) - 1, part * len(row) // CONFIG.parts)]
        w = weight[members] / weight[members].sum()
        out.append((w @ embeds[members] - encoder.embedding_mean) @ encoder.embedding_axes.T)
        out.append((w @ states[members] - encoder.layer_mean) @ encoder.layer_axes.T)
    return torch.cat(out)


def test_latents_are_those_of_the_formula_whatever_is_beside_them(tiny_llama: Path) -> None:
    base, _ = load_base(tiny_llama, device="cpu")
    encoder = encoder_for(base.config.hidden_size, base.config.vocab_size)
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14], [20, 21, 22]]
    ids, mask = torch.zeros(len(rows), 9, dtype=torch.long), torch.zeros(len(rows), 9, dtype=torch.long)
    for i, row in enumerate(rows):
        start = 9 - len(row) if i % 2 else 0  # padded on either side
        ids[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = 1
    z = encoder(base, ids, mask)
    assert z.shape == (4, CONFIG.z_dim)
    for i, row in enumerate(rows):
        assert_near(z[i], by_the_formula(encoder, base, row), atol=1e-5)


def test_an_empty_row_is_finite(tiny_llama: Path) -> None:
    base, _ = load_base(tiny_llama, device="cpu")
    encoder = encoder_for(base.config.hidden_size, base.config.vocab_size)
    assert torch.isfinite(encoder(base, torch.zeros(1, 4).long(), torch.zeros(1, 4).long())).all()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 12])
def test_each_token_is_in_one_part_and_no_part_is_empty(length: int) -> None:
    members = part_members(torch.tensor([length]), 4, 12)[0]
    assert members.sum(1).min() >= 1
    assert not members[:, length:].any()
    if length >= 4:
        assert members[:, :length].sum(0).tolist() == [1.0] * length


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma2", "phi"])
def test_lower_layers_give_the_input_of_the_next(kind: str) -> None:
    sizes = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, vocab_size=20, intermediate_size=32)
    config = transformers.AutoConfig.for_model(kind, **sizes)
    if hasattr(config, "head_dim"):
        config.head_dim, config.num_key_value_heads = 8, 2
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config).eval()
    embeds = base.get_input_embeddings()(torch.arange(5)[None])
    with torch.no_grad():
        states = base(inputs_embeds=embeds, output_hidden_states=True).hidden_states
        for layer in (1, 2):
            found = lower_layers(base, layer)(inputs_embeds=embeds, use_cache=False).last_hidden_state
            assert torch.equal(found, states[layer])
        again = base(inputs_embeds=embeds, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(states, again, strict=True)), "the base is as it was"
    with pytest.raises(UnsupportedBase, match="layer 4 was asked of a base of 3"):
        lower_layers(base, 4)


def test_it_is_saved_and_loaded_and_damage_is_refused(tmp_path: Path) -> None:
    encoder = encoder_for(8, 20)
    encoder.save(tmp_path / "e.safetensors")
    again = StateEncoder.load(tmp_path / "e.safetensors", CONFIG, 8, 20)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in encoder.state_dict().items())
    with pytest.raises(CheckpointError, match="token_weight has shape"):
        StateEncoder.load(tmp_path / "e.safetensors", CONFIG, 8, 21)


def test_a_configuration_of_other_widths_is_refused(tmp_path: Path) -> None:
    base = BaseIdentity(name="b", model_type="llama", hidden_size=8, vocab_size=20, layers=2)
    config = LatentConfig.model_validate({"base": base, "z_dim": CONFIG.z_dim, "state_encoder": CONFIG})
    config.save(tmp_path)
    assert LatentConfig.load(tmp_path) == config and ENCODER not in config.roles
    path = tmp_path / CONFIG_NAME
    path.write_text(path.read_text().replace(f'"z_dim": {CONFIG.z_dim}', '"z_dim": 7'))
    with pytest.raises(CheckpointError, match="gives latents of 15, not of z_dim 7"):
        LatentConfig.load(tmp_path)
