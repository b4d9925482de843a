"""Encoding: padding, order, direction, long and bad texts; adapters; fused copies; masks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from steer.errors import LatentError, TextError
from steer.models.adapters import ENCODER, ROUTER, use_adapter
from steer.models.base import additive_mask
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from tests.steer.tiny import SOFT, SPAN, Z_DIM, assert_near, forced_logits, sharpen, stir, tiny_model

TEXTS = ["a", "the cat", "dogs", "we ran.", "oh no"]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama)


def oracle_latents(model: LatentModel, rows: list[list[int]], *, causal: bool = False) -> Tensor:
    """Each row alone, under PEFT's own switch and a four-dimensional mask."""
    model.peft.set_adapter(ENCODER)
    out = []
    with torch.no_grad():
        for ids in rows:
            mask = additive_mask(torch.ones(1, len(ids)), causal=causal)
            result = model.peft(torch.tensor([ids]), attention_mask=mask, output_hidden_states=True, use_cache=False)
            out.append(model.head.pool(result.hidden_states[-1], torch.ones(1, len(ids))))
    model.peft.requires_grad_(False)
    return torch.cat(out)


# Encoding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [True, False])
def test_latents_are_those_of_a_bidirectional_pass_over_each_row_alone(model: LatentModel, fuse: bool) -> None:
    rows = [[1, 2, 3, 4, 5, 6, 7, 8], [9], [10, 11, 12], [7, 7, 7, 7, 7]]
    model.fuse = fuse
    try:
        z = model.encode_ids(rows)
    finally:
        model.fuse = True
    assert z.dtype == torch.float32
    assert_near(z, oracle_latents(model, rows))
    assert (z - oracle_latents(model, rows, causal=True)).abs().max() > 1e-2


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_text_gives_the_same_latent_alone_and_in_any_batch(model: LatentModel, batch_size: int) -> None:
    together = model.encode(TEXTS, batch_size=batch_size)
    assert together.shape == (len(TEXTS), Z_DIM)
    for row, text in zip(together, TEXTS, strict=True):
        assert_near(row, model.encode(text)[0], atol=1e-5)
    shuffled = model.encode(TEXTS[::-1], batch_size=batch_size)
    assert_near(shuffled.flip(0), together, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fuse", [True, False])
def test_padding_on_either_side_and_what_lies_under_it_changes_nothing(
    model: LatentModel, side: str, fuse: bool
) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    model.fuse = fuse
    try:
        alone = model.encode_tokens(ids, torch.ones_like(ids))
        for pad in (0, 99):
            padding, mask = torch.full((1, 3), pad), torch.zeros(1, 3, dtype=torch.long)
            parts = ([padding, ids], [mask, torch.ones_like(ids)])
            order = 1 if side == "left" else -1
            padded = model.encode_tokens(*(torch.cat(part[::order], dim=1) for part in parts))
            assert_near(padded, alone, atol=1e-5)
    finally:
        model.fuse = True


def test_first_tokens_see_later_ones(model: LatentModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    changed = torch.tensor([[5, 6, 7, 9]])
    with use_adapter(model.peft, ENCODER) as base:
        hidden = [base.model(row, is_causal=False, use_cache=False).last_hidden_state for row in (ids, changed)]
    assert (hidden[0][:, 0] - hidden[1][:, 0]).abs().max() > 1e-3
    z = [model.encode_tokens(row, torch.ones_like(row)) for row in (ids, changed)]
    assert (z[0] - z[1]).abs().max() > 1e-2


def test_one_text_or_none_is_a_batch_too(model: LatentModel) -> None:
    assert torch.equal(model.encode("dogs"), model.encode(["dogs"]))
    assert model.encode([]).shape == (0, Z_DIM)
    assert model.encode_ids([]).shape == (0, Z_DIM)


def test_texts_are_encoded_as_they_stand_inside_a_story(model: LatentModel) -> None:
    assert torch.equal(model.encode("dogs"), model.encode(" dogs"))
    assert not torch.allclose(model.encode("dogs"), model.encode("\ndogs"))
    assert_near(model.encode("dogs"), model.encode_ids([model.to_ids(" dogs")]))


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_empty_texts_are_refused(model: LatentModel, text: str) -> None:
    with pytest.raises(TextError, match="text to encode is empty"):
        model.encode(["fine", text])


@pytest.mark.parametrize(("text", "message"), [("a\0b", "NUL"), ("a\udcffb", "lone surrogate"), (7, "got int")])
def test_what_is_no_text_is_refused(model: LatentModel, text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        model.encode([text])


def test_long_texts_are_refused_cut_or_averaged_as_asked(model: LatentModel) -> None:
    text = " a tale of three spans."  # 23 bytes: spans of 8, 8 and 7
    ids = model.to_ids(text)
    with pytest.raises(TextError, match=r"23 tokens does not fit a span of 8: 'a tale.*long='mean' or 'truncate'"):
        model.encode(text)
    assert_near(model.encode(text, long="truncate"), model.encode_ids([ids[:SPAN]]))
    parts = model.encode_ids([ids[:8], ids[8:16], ids[16:]])
    wanted = parts.mean(0) * parts.norm(dim=1).mean() / parts.mean(0).norm()
    assert_near(model.encode(text, long="mean")[0], wanted, atol=1e-5)
    mixed = model.encode(["dogs", text, "a"], long="mean")
    assert_near(mixed, torch.stack([model.encode("dogs")[0], wanted, model.encode("a")[0]]), atol=1e-5)


def test_an_unknown_way_with_long_texts_is_refused(model: LatentModel) -> None:
    for text in ("short", "a text that is too long"):
        with pytest.raises(ValueError, match="long"):
            model.encode(text, long="average")


def test_an_empty_row_of_tokens_is_refused(model: LatentModel) -> None:
    for rows in ([[]], [[1, 2], []]):
        with pytest.raises(TextError, match="empty"):
            model.encode_ids(rows)


def test_damaged_weights_are_noticed(tiny_llama: Path) -> None:
    broken = tiny_model(tiny_llama)
    broken.head.w_e.bias.data[0] = float("nan")
    with pytest.raises(LatentError, match="NaN or infinite latents"):
        broken.encode("dogs")


def test_bfloat16_latents_are_near_the_float32_ones(model: LatentModel, tiny_llama: Path) -> None:
    low = tiny_model(tiny_llama, dtype="bfloat16").encode(TEXTS)
    assert low.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(low, model.encode(TEXTS))
    assert cosine.min() > 0.99


def test_text_survives_the_way_to_ids_and_back(model: LatentModel) -> None:
    for text in ("", "Once upon a time,\n\tnaïve “dragons” 🐉 . , ! n't", " x"):
        assert model.to_text(model.to_ids(text)) == text
    assert model.to_text([*model.to_ids("end"), 256]) == "end"
    with pytest.raises(TextError, match="context contains NUL"):
        model.to_ids("\0")


# Adapters and fused copies --------------------------------------------------------------------------------------------


def test_use_adapter_restores_what_was_there_even_after_an_error(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama)
    parameters = dict(model.peft.named_parameters())
    parameters["base_model.model.model.layers.0.mlp.up_proj.lora_A.encoder.weight"].requires_grad_(True)
    layers = [layer for layer in model.peft.modules() if isinstance(layer, BaseTunerLayer)]

    def state() -> list[object]:
        flags = [p.requires_grad for p in parameters.values()]
        return [flags, [(list(layer.active_adapters), layer.disable_adapters) for layer in layers]]

    before = state()
    for name in (ENCODER, ROUTER, None):
        with pytest.raises(KeyError), use_adapter(model.peft, name):
            assert state()[0] == before[0]
            with use_adapter(model.peft, ROUTER):
                pass
            raise KeyError
        assert state() == before


def test_an_adapter_that_is_not_there_is_an_error(model: LatentModel) -> None:
    embeds = torch.zeros(1, 2, 32)
    with pytest.raises(LatentError, match="'decoder'.*encoder.*router"):
        model.role_logits("decoder", embeds)
    with pytest.raises(LatentError, match="'decoder'.*encoder.*router"), use_adapter(model.peft, "decoder"):
        pass


def test_roles_differ_and_fused_copies_give_what_adapters_give(tiny_llama: Path) -> None:
    model = sharpen(tiny_model(tiny_llama))
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    z = torch.randn(1, Z_DIM)
    fused, by_adapter = {}, {}
    for name in (ENCODER, ROUTER):
        fused[name] = model.role_logits(name, model.embed(ids))
    routed, encoded = model.router_logits(ids, z, ids), model.encode(TEXTS)
    model.fuse = False
    for name in (ENCODER, ROUTER):
        by_adapter[name] = model.role_logits(name, model.embed(ids))
        assert_near(fused[name], by_adapter[name])
    assert_near(routed, model.router_logits(ids, z, ids))
    assert_near(encoded, model.encode(TEXTS))
    assert (fused[ENCODER] - fused[ROUTER]).abs().max() > 0.05
    model.fuse = True
    table = model.fused(ROUTER).get_input_embeddings().weight
    assert table.data_ptr() == model.peft.get_base_model().get_input_embeddings().weight.data_ptr()


@pytest.mark.parametrize("change", [lambda m: m.double(), lambda m: m.to(torch.float64)])
def test_fused_copies_follow_a_change_of_type(tiny_llama: Path, change: Callable[[LatentModel], object]) -> None:
    model = tiny_model(tiny_llama)
    before = model.encode(TEXTS)
    change(model)
    assert_near(model.encode(TEXTS), before)


def test_fused_copies_are_dropped_when_training_begins(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama)
    before = model.encode(TEXTS)
    model.train()
    stir(model, seed=5)
    model.eval()
    assert (model.encode(TEXTS) - before).abs().max() > 1e-2


def test_latents_are_differentiable_in_training_mode(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama).train()
    for name, parameter in model.peft.named_parameters():
        parameter.requires_grad_("lora_" in name)
    ids = torch.tensor([[1, 2, 3]])
    model.encode_tokens(ids, torch.ones_like(ids)).sum().backward()
    moved = {n for n, p in model.peft.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved
    assert all(".encoder." in name for name in moved)


# Logits ---------------------------------------------------------------------------------------------------------------


def test_router_logits_stand_behind_context_and_latent(tiny_llama: Path) -> None:
    model = sharpen(tiny_model(tiny_llama))
    context, target, z = [3, 1, 4, 1, 5], [9, 2, 6, 5], torch.randn(Z_DIM)
    for latent in (z, None):
        batch = None if latent is None else latent[None]
        logits = model.router_logits(torch.tensor([context]), batch, torch.tensor([target]))
        assert logits.shape == (1, 5 + SOFT + 4, 258)
        wanted = forced_logits(model, ROUTER, context, [(latent, target)])[0]
        assert_near(logits[0, 5 + SOFT - 1 : -1], wanted)
    empty = model.router_logits(torch.zeros(1, 0, dtype=torch.long), z[None], torch.tensor([target]))
    assert empty.shape == (1, SOFT + 4, 258)


def test_role_logits_do_not_depend_on_padding(tiny_llama: Path) -> None:
    model = sharpen(tiny_model(tiny_llama))
    embeds = model.embed(torch.tensor([[1, 2, 3, 4]]))
    alone = model.role_logits(ROUTER, embeds)
    padded = torch.cat([torch.full((1, 3, 32), 5.0), embeds], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    assert_near(model.role_logits(ROUTER, padded, mask)[:, 3:], alone)


@pytest.mark.parametrize("causal", [True, False])
def test_the_additive_mask_is_right_entry_by_entry(causal: bool) -> None:
    padding = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    got = additive_mask(padding, causal=causal, dtype=torch.bfloat16)
    assert got.shape == (2, 1, 4, 4)
    assert got.dtype == torch.bfloat16
    for row in range(2):
        for query in range(4):
            seen = [key for key in range(4) if padding[row, key] == 1 and (not causal or key <= query)]
            for key in range(4):
                # A query that may look at nothing looks at itself.
                assert got[row, 0, query, key] == (0 if key in (seen or [query]) else torch.finfo(torch.bfloat16).min)


def test_a_fresh_model_writes_like_its_base_and_depends_on_its_seed_alone(tiny_llama: Path) -> None:
    options = {"span_tokens": 8, "z_dim": Z_DIM, "soft_tokens": 2, "rank": 4, "device": "cpu"}
    torch.manual_seed(1)
    first = fresh_model(tiny_llama, seed=3, **options)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second, other = fresh_model(tiny_llama, seed=3, **options), fresh_model(tiny_llama, seed=4, **options)
    assert torch.equal(first.encode(TEXTS), second.encode(TEXTS))
    assert not torch.allclose(first.encode(TEXTS), other.encode(TEXTS))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    embeds = first.embed(torch.tensor([[1, 2, 3]]))
    base = first.bare_copy()
    assert_near(first.role_logits(ROUTER, embeds), base(inputs_embeds=embeds).logits, atol=1e-6)
    assert not any("lora" in name for name, _ in base.named_parameters())


def test_tokens_by_their_first_character(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama)
    tokens = model.tokenizer.convert_ids_to_tokens(range(model.latent_config.base.vocab_size))
    inside = {token for token, flag in zip(tokens, model.continuation_tokens.tolist(), strict=True) if flag}
    assert {"e", "7", "'"} <= inside and not inside & {"\u0120", ".", ",", "!", ":", "\u010a"}
    assert [token for token, flag in zip(tokens, model.colons.tolist(), strict=True) if flag] == [":"]
