"""The loss of the autoencoder stage: what it counts, what it ignores, and where its gradients go."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steer.errors import TrainingError
from steer.evaluation.likelihood import ARMS, of_other_rows, summarize
from steer.models.adapters import ENCODER, ROUTER
from steer.models.latent_model import LatentModel
from steer.training.objectives.interleaved import SpanObjective
from steer.training.phases import unfreeze
from tests.steer.tiny import SPAN, Z_DIM, assert_near, forced_logits, sharpen, stir, tiny_model

N, C = 3, 10


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return sharpen(tiny_model(tiny_llama))


def objective_of(model: LatentModel, **options: Any) -> SpanObjective:
    settings = {"context_lengths": (4, C), "isolated_prob": 0.0, "null_prob": 0.0, "null_sequence_prob": 0.0}
    return SpanObjective(model, **{**settings, "noise": 0.0, **options})


def batch_of(rows: int = 2, seed: int = 0, index: int = 0, last: int = 5) -> dict[str, Tensor]:
    """Random rows; the last span of the first row has only `last` tokens."""
    generator = torch.Generator().manual_seed(seed)
    spans = torch.randint(1, 250, (rows, N, SPAN), generator=generator)
    mask = torch.ones_like(spans)
    mask[0, -1, last:] = 0
    return {
        "index": torch.arange(index, index + rows),
        "context": torch.randint(1, 250, (rows, C), generator=generator),
        "spans": spans * mask,
        "span_mask": mask,
        "evidence": spans * mask,
        "evidence_mask": mask.clone(),
    }


def loss_of(objective: SpanObjective, batch: dict[str, Tensor], beta: float = 0.0) -> dict[str, Tensor]:
    return objective(**batch, beta=torch.tensor(beta))


def losses(objective: SpanObjective, batch: dict[str, Tensor], soft: Tensor, context: int = C) -> Tensor:
    with torch.no_grad():
        return objective.span_losses(batch["context"][:, C - context :], batch["spans"], batch["span_mask"], soft)[0]


# What it computes -----------------------------------------------------------------------------------------------------


def test_training_and_inference_encode_alike(model: LatentModel) -> None:
    batch = batch_of()
    ids, mask = batch["spans"].flatten(0, 1), batch["span_mask"].flatten(0, 1)
    with torch.no_grad():
        assert_near(objective_of(model).encode(ids, mask), model.encode_tokens(ids, mask), atol=1e-5)


@pytest.mark.parametrize("context", [0, 4, C])
def test_losses_are_those_of_plain_forward_passes(model: LatentModel, context: int) -> None:
    batch, zs = batch_of(last=SPAN), torch.randn(2, N, Z_DIM)
    soft = model.head.soft(zs.flatten(0, 1)).unflatten(0, (2, N))
    soft[0, 1] = model.head.null_soft(1)[0]
    nll, right = objective_of(model).span_losses(
        batch["context"][:, C - context :], batch["spans"], batch["span_mask"], soft
    )
    for row in range(2):
        parts = [(None if (row, i) == (0, 1) else zs[row, i], batch["spans"][row, i].tolist()) for i in range(N)]
        for i, logits in enumerate(forced_logits(model, ROUTER, batch["context"][row, C - context :].tolist(), parts)):
            target = batch["spans"][row, i]
            assert_near(nll[row, i], -logits.log_softmax(-1)[range(SPAN), target], atol=3e-4)
            assert torch.equal(right[row, i], logits.argmax(-1) == target)


def test_training_writes_what_the_writer_reads(model: LatentModel) -> None:
    batch, z = batch_of(rows=1, last=SPAN), torch.randn(N, Z_DIM)
    nll = losses(objective_of(model), batch, model.head.soft(z)[None].detach())
    first = batch["spans"][:, 0]
    with torch.no_grad():
        logits = model.router_logits(batch["context"], z[:1], first)[0, -SPAN - 1 : -1]
    assert_near(nll[0, 0], -logits.log_softmax(-1)[range(SPAN), first[0]], atol=3e-4)


def test_the_loss_is_the_mean_over_tokens_plus_beta_times_kl(model: LatentModel) -> None:
    objective, batch = objective_of(model, context_lengths=(C,)), batch_of()
    with torch.no_grad():
        mean = objective.encode(batch["spans"].flatten(0, 1), batch["span_mask"].flatten(0, 1))
        nll = losses(objective, batch, model.head.soft(mean).unflatten(0, (2, N)))
        out = loss_of(objective, batch, beta=0.3)
    reconstruction = nll.sum() / batch["span_mask"].sum()
    kl = mean.pow(2).sum(1).mean() / 2
    assert_near(out["nll"], reconstruction)
    assert_near(out["kl"], kl)
    assert_near(out["loss"], reconstruction + 0.3 * kl / SPAN)


# What it ignores ------------------------------------------------------------------------------------------------------


def test_the_null_arm_ignores_the_latent(model: LatentModel) -> None:
    batch, other = batch_of(), batch_of()
    other["evidence"] = (other["evidence"] + 1) % 250
    with torch.no_grad():
        for options in ({"null_prob": 1.0}, {"null_sequence_prob": 1.0}):
            objective = objective_of(model, **options)
            assert torch.equal(loss_of(objective, batch)["nll"], loss_of(objective, other)["nll"])
        own = objective_of(model)
        assert not torch.equal(loss_of(own, batch)["nll"], loss_of(own, other)["nll"])
        isolated = objective_of(model, null_prob=1.0, isolated_prob=1.0)
        assert not torch.equal(loss_of(isolated, batch)["nll"], loss_of(isolated, other)["nll"])


@pytest.mark.parametrize("isolated", [0.0, 1.0])
def test_padding_changes_neither_loss_nor_kl(model: LatentModel, isolated: float) -> None:
    batch, other = batch_of(), batch_of()
    for name in ("spans", "evidence"):
        other[name] = torch.where(other["span_mask"] == 0, 77, other[name])
    objective = objective_of(model, isolated_prob=isolated)
    with torch.no_grad():
        one, two = loss_of(objective, batch, 0.5), loss_of(objective, other, 0.5)
    for name in one:
        assert_near(one[name], two[name], atol=1e-6)


def test_an_empty_span_counts_for_nothing(model: LatentModel) -> None:
    batch, other = batch_of(last=0), batch_of(last=0)
    other["spans"][0, -1] = other["evidence"][0, -1] = 99
    objective = objective_of(model)
    with torch.no_grad():
        one, two = loss_of(objective, batch, 0.5), loss_of(objective, other, 0.5)
        figures, others = objective.compare(batch), objective.compare(other)
    for name in one:
        assert torch.isfinite(one[name])
        assert_near(one[name], two[name], atol=1e-6)
    for name in ("nll_own", "nll_null", "kl", "norm", "spans", "tokens"):
        assert_near(figures[name], others[name], atol=1e-3)


def test_isolated_spans_see_neither_context_nor_each_other(model: LatentModel) -> None:
    objective, batch, other = objective_of(model, isolated_prob=1.0), batch_of(last=SPAN), batch_of(last=SPAN)
    other["context"] = other["context"].flip(0)
    for name in ("spans", "evidence"):
        other[name] = other[name].flip(1)
    with torch.no_grad():
        assert_near(loss_of(objective, batch)["loss"], loss_of(objective, other)["loss"], atol=1e-5)
        joint = objective_of(model)
        assert (loss_of(joint, batch)["loss"] - loss_of(joint, other)["loss"]).abs() > 1e-4


def test_choices_depend_on_seed_and_index_and_not_on_global_state(model: LatentModel) -> None:
    options = {"noise": 1.0, "null_prob": 0.5, "isolated_prob": 0.5}
    objective = objective_of(model, **options)
    with torch.no_grad():
        torch.manual_seed(1)
        first = loss_of(objective, batch_of())["loss"]
        torch.manual_seed(2)
        assert torch.equal(first, loss_of(objective, batch_of())["loss"])
        assert not torch.equal(first, loss_of(objective, batch_of(index=2))["loss"])
        assert not torch.equal(first, loss_of(objective_of(model, seed=1, **options), batch_of())["loss"])


# Gradients ------------------------------------------------------------------------------------------------------------


def test_gradients_reach_all_adapters_and_heads_and_nothing_of_the_base(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama).train()
    unfreeze(model, (ENCODER, ROUTER))
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    objective = objective_of(model, null_prob=0.5)
    (loss_of(objective, batch_of(rows=4), beta=0.1)["loss"]).backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert parameter.requires_grad == (id(parameter) in wanted), name
        if "lora_" in name or name.startswith("head."):
            # A constant added to every score changes no softmax.
            assert reached or name == "head.f.bias", name
        else:
            assert parameter.grad is None, name
    assert not {n for n, p in model.peft.named_parameters() if p.requires_grad and "lora_" not in n}


def test_without_noise_and_context_the_latent_carries_gradient_to_the_encoder(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama).train()
    unfreeze(model, (ENCODER, ROUTER))
    loss_of(objective_of(model, isolated_prob=1.0), batch_of())["loss"].backward()
    encoder = [p.grad for n, p in model.peft.named_parameters() if ".encoder." in n]
    assert encoder
    assert all(grad is not None and bool(grad.any()) for grad in encoder)


def test_latents_become_useful_within_a_few_dozen_steps(tiny_llama: Path) -> None:
    model = stir(sharpen(tiny_model(tiny_llama, rank=8, z_dim=16)), std=0.01).train()
    unfreeze(model, (ENCODER, ROUTER))
    parameters = [p for p in model.parameters() if p.requires_grad]
    objective = objective_of(model, isolated_prob=0.5, null_prob=0.2, noise=0.1, context_lengths=(4,))
    optimizer = torch.optim.AdamW(parameters, lr=2e-2)
    letters = torch.tensor([list(bytes([65 + i]) * SPAN) for i in range(4)])  # a span is one letter, eight times
    generator = torch.Generator().manual_seed(0)

    def batch(index: int) -> dict[str, Tensor]:
        spans = letters[torch.randint(0, 4, (6, N), generator=generator)]
        mask = torch.ones_like(spans)
        context = torch.full((6, 4), 32)
        return {"index": torch.tensor([index]), "context": context, "spans": spans, "span_mask": mask} | {
            "evidence": spans,
            "evidence_mask": mask,
        }

    for step in range(60):
        optimizer.zero_grad()
        loss_of(objective, batch(step), beta=1e-3)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    objective.eval()
    figures = summarize([objective.compare(batch(1000 + i)) for i in range(4)], SPAN)
    assert figures["nll_own"] < figures["nll_null"] - 0.1
    assert figures["nll_null"] < figures["nll_wrong"]
    assert figures["alone_own"] < figures["alone_null"]
    assert figures["accuracy"] > 0.9


# Figures --------------------------------------------------------------------------------------------------------------


def test_figures_do_not_depend_on_how_rows_are_batched_but_for_the_wrong_arm(model: LatentModel) -> None:
    objective, batch = objective_of(model), batch_of(rows=4)
    halves = [{name: t[i : i + 2] for name, t in batch.items()} for i in (0, 2)]
    whole = summarize([objective.compare(batch)], SPAN)
    split = summarize([objective.compare(half) for half in halves], SPAN)
    for name, value in whole.items():
        if "wrong" not in name:
            assert split[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize("lengths", [[3, 3], [1, 3], [3, 1, 1], [2, 0, 3], [3] * 6, [1, 2, 3, 1]])
def test_a_wrong_latent_is_of_another_row_that_holds_text(lengths: list[int]) -> None:
    alive = torch.arange(3)[None] < torch.tensor(lengths)[:, None]
    order = of_other_rows(alive)
    chosen = order[alive.flatten()]
    assert alive.flatten()[chosen].all()
    assert (chosen // 3 != torch.arange(alive.numel())[alive.flatten()] // 3).all()
    assert (order == torch.arange(alive.numel()))[~alive.flatten()].all()


@pytest.mark.parametrize("lengths", [[3], [0, 2, 0]])
def test_one_row_has_no_wrong_latents(lengths: list[int]) -> None:
    with pytest.raises(TrainingError, match="hold text in only one"):
        of_other_rows(torch.arange(3)[None] < torch.tensor(lengths)[:, None])


def test_the_wrong_arm_is_not_the_own_one_however_few_rows_there_are(model: LatentModel) -> None:
    figures = summarize([objective_of(model).compare(batch_of(rows=2))], SPAN)
    assert figures["nll_wrong"] != pytest.approx(figures["nll_own"], abs=1e-6)
    assert figures["alone_wrong"] != pytest.approx(figures["alone_own"], abs=1e-6)


def test_figures_are_what_they_say(model: LatentModel) -> None:
    objective, batch = objective_of(model), batch_of()
    figures = summarize([objective.compare(batch)], SPAN)
    z = model.encode_ids([[t for t in span.tolist() if t] for span in batch["spans"].flatten(0, 1)])
    assert figures["latent_norm"] == pytest.approx(float(z.norm(dim=1).mean()), rel=1e-4)
    assert figures["kl"] == pytest.approx(float(z.pow(2).sum(1).mean() / 2), rel=1e-4)
    assert figures["active_units"] == int((z.double().var(0, unbiased=False) > 0.01).sum())
    with torch.no_grad():
        for arm, latents in (("own", z), ("wrong", z.unflatten(0, (2, N)).roll(1, 0).flatten(0, 1)), ("null", None)):
            soft = model.soft(latents, 2 * N).unflatten(0, (2, N))
            nll = losses(objective, batch, soft).sum() / batch["span_mask"].sum()
            assert figures[f"nll_{arm}"] == pytest.approx(float(nll), abs=1e-4)
    assert {f"{kind}_{arm}" for kind in ("nll", "alone") for arm in ARMS} < set(figures)
