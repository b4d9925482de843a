"""MiniHF's losses: against the formulas written out, on full passes that PEFT itself switches; and what they ignore."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from steer.evaluation.likelihood import compare_router, span_logits
from steer.models.adapters import DECODER, ENCODER, ROUTER
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from steer.training.objectives.minihf import DecoderObjective, RouterObjective, token_weights
from steer.training.phases import unfreeze
from tests.steer.minihf_oracle import MiniHFOracle, make_minihf_folder
from tests.steer.tiny import assert_near, stir

SPAN, B = 8, 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_minihf_folder(tmp_path_factory.mktemp("minihf"), 5)


@pytest.fixture(scope="module")
def model(folders: tuple[Path, Path]) -> LatentModel:
    base, folder = folders
    return LatentModel.from_minihf(folder, base=base, span_tokens=SPAN, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def oracle(folders: tuple[Path, Path]) -> MiniHFOracle:
    return MiniHFOracle.load(*folders)


def batch_of(spans: int, context: int, *, last: int = SPAN, index: int = 7, vocab: int = 60) -> dict[str, Tensor]:
    """Random rows; the last span of the first row ends after `last` tokens."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, vocab, (B, context + spans * SPAN), generator=generator)
    mask = torch.ones(B, spans, SPAN, dtype=torch.long)
    mask[0, -1, last:] = 0
    rows = ids[:, context:].unflatten(1, (spans, SPAN)) * mask
    return {"index": torch.arange(index, index + B), "context": ids[:, :context], "spans": rows, "span_mask": mask} | {
        "evidence": rows,
        "evidence_mask": mask,
    }


def loss_of(objective: Any, batch: dict[str, Tensor], beta: float = 0.0) -> dict[str, Tensor]:
    return objective(**batch, beta=torch.tensor(beta))


def nll_of(logits: Tensor, ids: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]


# The formulas ---------------------------------------------------------------------------------------------------------


def test_the_weights_of_a_span_of_64_are_bigvaes() -> None:
    weights = token_weights(64)
    assert weights.tolist() == pytest.approx([0.05] * 8 + [1.0] * 48 + [0.15] * 8)
    assert float(weights.sum()) == pytest.approx(49.6)
    assert token_weights(4).tolist() == [1.0] * 4


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_stage_one_is_the_reference_formula(model: LatentModel, oracle: MiniHFOracle, drop: float) -> None:
    batch, beta = batch_of(1, SPAN, last=5), 0.3
    span, mask, context = batch["spans"][:, 0], batch["span_mask"][:, 0], batch["context"]
    objective = DecoderObjective(model, context_drop=drop, noise=0.0)
    with torch.no_grad():
        got = loss_of(objective, batch, beta)
    seen = torch.full_like(context, int(drop == 0.0))
    # The first token is predicted from the last context slot, at index C; the encoder sees all but the last token.
    z = oracle.encode(span[:, :-1], mask[:, :-1])
    logits = oracle.decoder_logits(z, context * seen, span[:, :-1], seen)[:, SPAN:]
    weights = mask * token_weights(SPAN)
    reconstruction = (nll_of(logits, span) * weights).sum() / weights.sum()
    kl = (z.square() / 2).sum()
    assert_near(got["nll"], reconstruction)
    assert_near(got["loss"], reconstruction + beta * kl / weights.sum())
    assert_near(got["kl"], kl / B, atol=1e-3)


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_stage_two_is_the_reference_formula(model: LatentModel, oracle: MiniHFOracle, drop: float) -> None:
    batch = batch_of(2, 12, last=3)
    target, mask = batch["spans"].flatten(1), batch["span_mask"].flatten(1)
    context = batch["context"][:, -6:]
    objective = RouterObjective(model, context_lengths=[6], context_drop=drop, noise=0.0)
    with torch.no_grad():
        got = loss_of(objective, batch, beta=0.3)
    seen = torch.full_like(context, int(drop == 0.0))
    z = oracle.encode(batch["spans"][:, 0], batch["span_mask"][:, 0])
    logits = oracle.router_logits(context * seen, z, target[:, :-1], seen)[:, 6:]
    assert_near(got["loss"], (nll_of(logits, target) * mask).sum() / mask.sum())


def test_both_layouts_give_the_recorded_numbers(recorded: Path) -> None:
    """Means and logits on the reference checkpoint are those that MiniHF's code gave."""
    expected = load_file(recorded / "expected.safetensors")
    model = LatentModel.from_minihf(recorded / "checkpoint", base=recorded / "base", dtype="float32", device="cpu")
    ids, mask, z, context, target = (
        expected[name] for name in ("input_ids", "attention_mask", "z", "context_ids", "target_ids")
    )
    objective = DecoderObjective(model)
    with torch.no_grad():
        assert_near(objective.encode(ids, mask), z)
        decoded = objective.decode(context, torch.ones_like(context), z[:1], target)
        assert_near(decoded, expected["decoder_logits"][:, context.shape[1] : -1])
        written = span_logits(model, context, z[:1], target)
        assert_near(written, expected["router_logits"][:, context.shape[1] : -1])


# What it draws and ignores --------------------------------------------------------------------------------------------


def test_contexts_are_dropped_by_rows_and_by_seed(model: LatentModel) -> None:
    objective = DecoderObjective(model, context_drop=0.5)
    context = torch.ones(4000, 3, dtype=torch.long)
    hidden, mask = objective._drop(context, torch.Generator().manual_seed(0))
    assert torch.equal(hidden, mask) and set(mask.sum(1).tolist()) == {0, 3}
    assert float(mask.float().mean()) == pytest.approx(0.5, abs=0.03)
    with torch.no_grad():
        batch = batch_of(1, SPAN)
        torch.manual_seed(1)
        first = loss_of(objective, batch)["loss"]
        torch.manual_seed(2)
        assert torch.equal(first, loss_of(objective, batch)["loss"])
        assert not torch.equal(first, loss_of(objective, batch_of(1, SPAN, index=8))["loss"])
        assert not torch.equal(first, loss_of(DecoderObjective(model, context_drop=0.5, seed=1), batch)["loss"])


def test_a_dropped_context_is_not_read(model: LatentModel) -> None:
    for objective, spans in ((DecoderObjective(model, context_drop=1.0), 1), (None, 2)):
        objective = objective or RouterObjective(model, context_lengths=[SPAN], context_drop=1.0)
        batch = batch_of(spans, SPAN)
        other = {**batch, "context": batch["context"].flip(1)}
        with torch.no_grad():
            assert torch.equal(loss_of(objective, batch)["loss"], loss_of(objective, other)["loss"])


def test_rows_padded_on_either_side_and_empty_rows_are_encoded(model: LatentModel, oracle: MiniHFOracle) -> None:
    ids = torch.tensor([[0, 0, 5, 6, 7], [5, 6, 7, 0, 0], [0, 0, 0, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    with torch.no_grad():
        z = DecoderObjective(model).encode(ids, mask)
    assert_near(z[:2], oracle.encode(ids[:2], mask[:2]))
    assert torch.isfinite(z).all()


def test_padding_changes_nothing(model: LatentModel) -> None:
    for objective, spans in (
        (DecoderObjective(model, context_drop=0.5), 1),
        (RouterObjective(model, context_lengths=[SPAN]), 2),
    ):
        batch = batch_of(spans, SPAN, last=3)
        other = {**batch, "spans": torch.where(batch["span_mask"] == 0, 9, batch["spans"])}
        with torch.no_grad():
            assert_near(loss_of(objective, batch, 0.2)["loss"], loss_of(objective, other, 0.2)["loss"], atol=1e-6)


# Gradients ------------------------------------------------------------------------------------------------------------


def test_each_stage_trains_its_adapters_alone(tiny_llama: Path) -> None:
    model = fresh_model(
        tiny_llama, layout="minihf", span_tokens=SPAN, z_dim=6, rank=2, alpha=2, dtype="float32", device="cpu"
    )
    stir(model).train()
    stages = (
        (DecoderObjective(model), batch_of(1, SPAN, vocab=250), (ENCODER, DECODER), True),
        (RouterObjective(model, context_lengths=[4]), batch_of(2, SPAN, vocab=250), (ROUTER,), False),
    )
    for objective, batch, roles, head in stages:
        model.zero_grad(set_to_none=True)
        unfreeze(model, roles, head=head)
        loss_of(objective, batch, 0.1)["loss"].backward()
        for name, parameter in model.named_parameters():
            wanted = any(f".{role}." in name for role in roles) or (head and name.startswith("head."))
            # A constant added to every score changes no softmax.
            reached = parameter.grad is not None and bool(parameter.grad.any())
            assert reached == wanted or name == "head.f.bias", name


# Figures --------------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_each_span_behind_what_is_visible(model: LatentModel, oracle: MiniHFOracle) -> None:
    batch = batch_of(2, 6)
    z = oracle.encode(batch["spans"].flatten(0, 1), batch["span_mask"].flatten(0, 1)).unflatten(0, (B, 2))
    sums = compare_router(model, batch)
    found: dict[str, Tensor] = {}
    for i in range(2):
        before = torch.cat([batch["context"], batch["spans"][:, :i].flatten(1)], dim=1)
        span = batch["spans"][:, i]
        none = before[:, :0]
        base = oracle.base_logits(torch.cat([before, span], dim=1))
        arms = {
            "nll_own": oracle.router_logits(before, z[:, i], span)[:, before.shape[1] : -1],
            "nll_wrong": oracle.router_logits(before, z.roll(1, 0)[:, i], span)[:, before.shape[1] : -1],
            "nll_null": base[:, before.shape[1] - 1 : -1],
            "alone_own": oracle.router_logits(none, z[:, i], span)[:, :-1],
        }
        for arm, logits in arms.items():
            found[arm] = found.get(arm, torch.zeros(())) + nll_of(logits, span).sum()
    for arm, value in found.items():
        assert_near(sums[arm], value, atol=2e-3)
    assert_near(sums["kl"].float(), 0.5 * z.square().sum(), atol=1e-3)


def test_the_probe_of_stage_one_reads_the_decoder(model: LatentModel, oracle: MiniHFOracle) -> None:
    batch = batch_of(1, 12)
    span = batch["spans"][:, 0]
    sums = DecoderObjective(model).eval().compare(batch)
    z = oracle.encode(span, torch.ones_like(span))
    near, hidden = batch["context"][:, -SPAN:], torch.zeros_like(span)
    own = nll_of(oracle.decoder_logits(z, near, span)[:, SPAN:-1], span).sum()
    alone = nll_of(oracle.decoder_logits(z, hidden, span, hidden)[:, SPAN:-1], span).sum()
    assert_near(sums["nll_own"], own, atol=1e-3)
    assert_near(sums["alone_own"], alone, atol=1e-3)
