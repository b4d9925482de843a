"""The MiniHF oracle against three witnesses: recorded reference numbers, transformers with PEFT, and its own laws.

The recorded numbers lie in a folder outside the repository: `STEER_MINIHF_FIXTURE`, or `shared/fixtures/minihf` beside
the project root. Where neither is there, the tests that need them are skipped and the other two witnesses remain.
"""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.steer.minihf_oracle import (
    ROLES,
    MiniHFOracle,
    additive_mask,
    annealed_blends,
    make_minihf_folder,
    rescaled_mix,
)


def assert_near(actual: Tensor, wanted: Tensor) -> None:
    """Every element within 1e-4, the agreement that float32 is held to."""
    torch.testing.assert_close(actual, wanted, atol=1e-4, rtol=0.0)


# Recorded numbers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(recorded: Path) -> dict[str, Tensor]:
    return load_file(recorded / "expected.safetensors")


@pytest.fixture(scope="module")
def reference(recorded: Path) -> MiniHFOracle:
    return MiniHFOracle.load(recorded / "base", recorded / "checkpoint")


def test_every_recorded_tensor_is_checked_here(expected: dict[str, Tensor]) -> None:
    inputs = {"input_ids", "attention_mask", "context_ids", "target_ids"}
    outputs = {"z", "decoder_logits", "router_logits", "annealed_blends"}
    greedy = {"decoder_greedy", "router_greedy", "router_cfg_greedy_1.5"}
    assert set(expected) == inputs | outputs | greedy


def test_recorded_ids_are_the_texts_padded_left_without_special_tokens(
    recorded: Path, expected: dict[str, Tensor]
) -> None:
    texts = json.loads((recorded / "texts.json").read_text())["texts"]
    tokenizer = Tokenizer.from_file(str(recorded / "base" / "tokenizer.json"))
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    longest = max(map(len, rows))
    assert expected["input_ids"].tolist() == [[0] * (longest - len(row)) + row for row in rows]
    assert expected["attention_mask"].tolist() == [[0] * (longest - len(row)) + [1] * len(row) for row in rows]


def test_encode_gives_the_recorded_latents(reference: MiniHFOracle, expected: dict[str, Tensor]) -> None:
    z = reference.encode(expected["input_ids"], expected["attention_mask"])
    assert_near(z, expected["z"])


def test_logits_are_the_recorded_ones_for_the_first_latent(
    reference: MiniHFOracle, expected: dict[str, Tensor]
) -> None:
    z, context, target = expected["z"][:1], expected["context_ids"], expected["target_ids"]
    assert_near(reference.decoder_logits(z, context, target), expected["decoder_logits"])
    assert_near(reference.router_logits(context, z, target), expected["router_logits"])


def test_greedy_continuations_are_the_recorded_ones(reference: MiniHFOracle, expected: dict[str, Tensor]) -> None:
    z, context = expected["z"][:1], expected["context_ids"]
    assert reference.greedy("decoder", context, z).tolist() == expected["decoder_greedy"].tolist()
    assert reference.greedy("router", context, z).tolist() == expected["router_greedy"].tolist()
    guided = reference.greedy("router", context, z, guidance_scale=1.5)
    assert guided.tolist() == expected["router_cfg_greedy_1.5"].tolist()


def test_blends_anneal_from_the_first_latent_to_the_third(expected: dict[str, Tensor]) -> None:
    blends = annealed_blends(expected["z"][0], expected["z"][2])
    assert_near(blends, expected["annealed_blends"])


# transformers and PEFT on a folder of our own -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mistral", "llama"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_minihf_folder(tmp_path_factory.mktemp(request.param), seed=7, family=request.param)


@pytest.fixture(scope="module")
def oracle(folders: tuple[Path, Path]) -> MiniHFOracle:
    return MiniHFOracle.load(*folders)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, 259, (2, 21), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def z() -> Tensor:
    return torch.randn(2, 16, generator=torch.Generator().manual_seed(4))


def test_base_agrees_with_transformers(folders: tuple[Path, Path], oracle: MiniHFOracle, ids: Tensor) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    assert_near(oracle.base_logits(ids), logits)


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # PEFT reads a name transformers retires
@pytest.mark.parametrize("role", ROLES)
def test_adapters_agree_with_peft(
    folders: tuple[Path, Path], oracle: MiniHFOracle, ids: Tensor, z: Tensor, role: str
) -> None:
    base_dir, checkpoint_dir = folders
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(base, str(checkpoint_dir / role)).eval()
    embeds = torch.cat([oracle.embed(ids[:, :9]), oracle.soft_token(z), oracle.embed(ids[:, 9:])], dim=1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    mask[1, :4] = 0
    causal = role != "encoder"
    positions = torch.arange(embeds.shape[1]).expand(2, -1)
    bias = additive_mask(mask, causal=causal, dtype=torch.float32)
    with torch.no_grad():
        out = model(inputs_embeds=embeds, attention_mask=bias, position_ids=positions, output_hidden_states=True)
    hidden = oracle.hidden(role, embeds, mask, causal=causal)
    assert_near(hidden[mask == 1], out.hidden_states[-1][mask == 1])


def test_tokenizer_loads_and_prepends_bos_unless_told_not_to(folders: tuple[Path, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    text = "He ran - naïvely."
    plain = tokenizer(text, add_special_tokens=False).input_ids
    assert len(plain) == len(text.encode()) and min(plain) > 2
    assert tokenizer(text).input_ids == [1, *plain]
    assert tokenizer.decode(plain) == text


# Laws -----------------------------------------------------------------------------------------------------------------


def test_same_seed_gives_same_tensors(tmp_path: Path) -> None:
    first, second, other = (make_minihf_folder(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    for side, name in ((0, "model.safetensors"), (1, "vae.safetensors"), (1, "router/adapter_model.safetensors")):
        assert (first[side] / name).read_bytes() == (second[side] / name).read_bytes()
        assert (first[side] / name).read_bytes() != (other[side] / name).read_bytes()


def test_padding_changes_no_latent_whatever_lies_under_it(oracle: MiniHFOracle, ids: Tensor) -> None:
    alone = oracle.encode(ids[:1], torch.ones_like(ids[:1]))
    for pad in (0, 77):
        padded = torch.cat([torch.full((1, 6), pad), ids[:1]], dim=1)
        mask = torch.tensor([[0] * 6 + [1] * ids.shape[1]])
        assert_near(oracle.encode(padded, mask), alone)


def test_encoder_sees_forward_and_the_router_does_not(oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    changed = ids.clone()
    changed[:, -1] = 5
    mask = torch.ones_like(ids)
    states = [oracle.hidden("encoder", oracle.embed(row), mask, causal=False)[:, 0] for row in (ids, changed)]
    assert (states[0] - states[1]).abs().max() > 1e-3
    logits = [oracle.router_logits(row[:, :9], z, row[:, 9:]) for row in (ids, changed)]
    assert_near(logits[0][:, :-1], logits[1][:, :-1])


def test_dropped_context_is_unseen_but_holds_its_positions(oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    context, target = ids[:, :9], ids[:, 9:]
    dropped = torch.zeros_like(context)
    logits = oracle.decoder_logits(z, context, target, dropped)
    blank = oracle.decoder_logits(z, torch.zeros_like(context), target, dropped)
    assert_near(logits[:, 10:], blank[:, 10:])
    without = oracle.decoder_logits(z, context[:, :0], target)
    assert (logits[:, 10:] - without[:, 1:]).abs().max() > 1e-3


def test_each_latent_is_read_and_each_row_stands_alone(oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    context, target = ids[:, :9], ids[:, 9:]
    together = oracle.router_logits(context, z, target)
    assert_near(together[1:], oracle.router_logits(context[1:], z[1:], target[1:]))
    assert (together[:, 9:] - oracle.router_logits(context, z.flip(0), target)[:, 9:]).abs().max() > 1e-2
    assert_near(together[:, :9], oracle.router_logits(context, z.flip(0), target)[:, :9])


def test_greedy_tokens_are_the_argmax_of_teacher_forced_logits(oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    context = ids[:, :9]
    decoded, routed = oracle.greedy("decoder", context, z, n=6), oracle.greedy("router", context, z, n=6)
    forced = (
        oracle.decoder_logits(z, context, decoded[:, 9:]),
        oracle.router_logits(context, z, routed[:, 9:]),
    )
    for written, logits in zip((decoded, routed), forced, strict=True):
        assert written[:, :9].tolist() == context.tolist()
        assert logits[:, 9:-1].argmax(dim=-1).tolist() == written[:, 9:].tolist()


def test_guidance_of_one_is_the_router_and_of_zero_the_base(oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    context = ids[:, :9]
    assert oracle.greedy("router", context, z, 6, 1.0).tolist() == oracle.greedy("router", context, z, 6).tolist()
    plain = context
    for _ in range(6):
        plain = torch.cat([plain, oracle.base_logits(plain)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert oracle.greedy("router", context, z, 6, 0.0).tolist() == plain.tolist()


def test_router_may_begin_without_context(oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    assert oracle.greedy("router", ids[:, :0], z, n=3).shape == (2, 3)
    with pytest.raises(ValueError, match="at least one context token"):
        oracle.greedy("router", ids[:, :0], z, n=3, guidance_scale=1.5)
    with pytest.raises(ValueError, match="guidance_scale needs the router"):
        oracle.greedy("decoder", ids, z, n=3, guidance_scale=1.5)


def test_first_stage_folder_routes_with_its_decoder(tmp_path: Path, ids: Tensor, z: Tensor) -> None:
    base_dir, checkpoint_dir = make_minihf_folder(tmp_path, seed=7, stage=1)
    assert sorted(path.name for path in checkpoint_dir.iterdir()) == [
        "decoder",
        "encoder",
        "state.json",
        "vae.safetensors",
    ]
    oracle = MiniHFOracle.load(base_dir, checkpoint_dir)
    no_context = ids[:, :0]  # without context both layouts are [z][target]
    torch.testing.assert_close(oracle.router_logits(no_context, z, ids), oracle.decoder_logits(z, no_context, ids))


def test_blends_keep_the_mean_norm_and_end_at_weight_one(z: Tensor) -> None:
    draft, terminal = z
    norm = draft.norm()
    for blend in annealed_blends(draft, terminal, n=8):
        norm = (norm + terminal.norm()) / 2
        torch.testing.assert_close(blend.norm(), norm)
    arrived = rescaled_mix(z, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(arrived / arrived.norm(), terminal / terminal.norm())
