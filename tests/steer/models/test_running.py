"""A model under a role: threads on one model get what each would get alone."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.models.adapters import ENCODER, ROUTER
from steer.models.latent_model import LatentModel
from tests.steer.tiny import tiny_model

ROLES = (ENCODER, ROUTER, None)


@pytest.fixture(params=[True, False], ids=["fused", "unfused"])
def model(request: pytest.FixtureRequest, tiny_llama: Path) -> LatentModel:
    """A small model whose adapters differ from the base."""
    made = tiny_model(tiny_llama)
    made.fuse = request.param
    return made


def logits(model: LatentModel, role: str | None) -> Tensor:
    with torch.no_grad():
        return model.role_logits(role, model.embed(torch.arange(24)[None]))


def test_each_role_is_another_model(model: LatentModel) -> None:
    first, second, bare = (logits(model, role) for role in ROLES)
    assert not torch.allclose(first, second) and not torch.allclose(second, bare)


def test_threads_under_different_roles_do_not_disturb_each_other(model: LatentModel) -> None:
    alone = {role: logits(model, role) for role in ROLES}
    calls = [role for _ in range(40) for role in ROLES]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda role: logits(model, role), calls))
    for role, got in zip(calls, together, strict=True):
        assert torch.equal(got, alone[role])


def test_the_bare_base_shares_its_weights(model: LatentModel) -> None:
    with model.running(None) as base:
        assert not any("lora_" in name for name, _ in base.named_parameters()) or not model.fuse
        assert base.get_input_embeddings().weight is model.peft.get_base_model().get_input_embeddings().weight


def test_a_copy_has_a_lock_of_its_own(model: LatentModel) -> None:
    twin = deepcopy(model)
    assert torch.equal(logits(twin, ROUTER), logits(model, ROUTER))
