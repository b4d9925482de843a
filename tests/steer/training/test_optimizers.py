"""Muon and AdamW behind one interface: which parameter goes where, steps, schedules, and resuming."""

import copy
import io
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from steer.training.optimizers import MuonAdamW, build_optimizer

SETTINGS = {"kind": "muon", "learning_rate": 1e-2, "muon_learning_rate": 2e-2, "weight_decay": 0.1}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 4)
        self.hidden = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.LayerNorm(4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.frozen(self.hidden(self.embed(ids)))).pow(2).mean()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        ids = torch.randint(0, 10, (8,), generator=generator)
        (model(ids) + sum(p.pow(2).sum() for p in model.parameters() if p.requires_grad)).backward()
        optimizer.step()


def names(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, float]]:
    """Settings by parameter name."""
    own = {id(p): name for name, p in model.named_parameters()}
    return {
        own[id(p)]: {"lr": group["lr"], "decay": group["weight_decay"]}
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_hidden_matrices_go_to_muon_the_rest_to_adamw_and_frozen_ones_nowhere() -> None:
    model = Small()
    optimizer = build_optimizer(model, **SETTINGS)
    assert isinstance(optimizer, MuonAdamW)
    assert names(model, optimizer) == {
        "hidden.weight": {"lr": 2e-2, "decay": 0.1},
        "embed.weight": {"lr": 1e-2, "decay": 0.1},
        "hidden.bias": {"lr": 1e-2, "decay": 0.0},
        "norm.weight": {"lr": 1e-2, "decay": 0.0},
        "norm.bias": {"lr": 1e-2, "decay": 0.0},
    }


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_head_is_no_hidden_matrix(tiny_llama: Path, tied: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    rates = names(model, build_optimizer(model, **SETTINGS))
    assert len(rates) == len(list(model.parameters()))
    muon = {name for name, settings in rates.items() if settings["lr"] == 2e-2}
    assert muon == {f"model.layers.{i}.{n}.weight" for i in range(2) for n in HIDDEN}


HIDDEN = [f"self_attn.{n}_proj" for n in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")]


def test_plain_adamw_takes_everything() -> None:
    model = Small()
    optimizer = build_optimizer(model, **{**SETTINGS, "kind": "adamw"})
    assert isinstance(optimizer, torch.optim.AdamW)
    assert set(names(model, optimizer)) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_a_step_equals_a_step_of_each_part_alone() -> None:
    model = Small()
    other = copy.deepcopy(model)
    train(model, build_optimizer(model, **SETTINGS), 3)
    muon = torch.optim.Muon([other.hidden.weight], lr=2e-2, weight_decay=0.1, momentum=0.95)
    adamw = torch.optim.AdamW(
        [
            {"params": [other.embed.weight], "weight_decay": 0.1},
            {"params": [other.hidden.bias, other.norm.weight, other.norm.bias], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.98),
    )

    class Both:
        def zero_grad(self) -> None:
            muon.zero_grad()
            adamw.zero_grad()

        def step(self) -> None:
            muon.step()
            adamw.step()

    train(other, Both(), 3)  # type: ignore[arg-type]
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, msg=name)


def test_a_run_resumed_from_its_state_goes_on_as_it_would_have() -> None:
    whole, first = Small(), Small()
    optimizer = build_optimizer(whole, **SETTINGS)
    train(whole, optimizer, 3)
    train(whole, optimizer, 3, seed=1)
    half = build_optimizer(first, **SETTINGS)
    train(first, half, 3)
    buffer = io.BytesIO()
    torch.save(half.state_dict(), buffer)
    buffer.seek(0)
    second = copy.deepcopy(first)
    resumed = build_optimizer(second, **{**SETTINGS, "learning_rate": 5.0})
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    assert names(second, resumed) == names(first, half)
    train(second, resumed, 3, seed=1)
    for one, two in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_state_of_other_parts_is_refused() -> None:
    state = build_optimizer(Small(), **SETTINGS).state_dict()
    state["parts"] = state["parts"][:1]
    with pytest.raises(ValueError, match="zip"):
        build_optimizer(Small(), **SETTINGS).load_state_dict(state)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_scheduler_reaches_both_parts_also_after_loading(loaded: bool) -> None:
    model = Small()
    optimizer = build_optimizer(model, **SETTINGS)
    train(model, optimizer, 1)
    if loaded:
        optimizer.load_state_dict(optimizer.state_dict())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    if loaded:
        optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 1)
    before = copy.deepcopy(model.state_dict())
    scheduler.step()
    assert isinstance(optimizer, MuonAdamW)
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [0.0, 0.0, 0.0]
    train(model, optimizer, 1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
