"""What is made of a model's weights is made once, and again after the weights have changed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.search.engines import opening
from steer.search.engines.base import Engine, SpanRequest
from steer.search.engines.opening import open_engine
from steer.search.engines.prefix_cache import hooked_copy
from steer.search.tree import Tree
from steer.writing.sampling import SamplingConfig
from tests.steer.tiny import SPAN, Z_DIM, sharpen, stir, tiny_model

CHANGES: dict[str, Callable[[LatentModel], object]] = {
    "invalidate": lambda m: m.invalidate(),
    "train": lambda m: m.train().eval(),
    "to": lambda m: m.to(torch.float64),
}


@pytest.fixture
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama)


def one_root() -> Tree:
    tree = Tree(SPAN, Z_DIM)
    tree.add_root([65, 66, 67], seed=0, horizon=2)
    return tree


def engine_for(model: LatentModel, **options: object) -> Engine:
    return open_engine(model, one_root(), sampling=SamplingConfig(temperature=0), **options)  # type: ignore[arg-type]


def test_it_is_made_once_per_name_until_it_is_dropped(model: LatentModel) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [model.cached(name, make) for name in ("a", "a", ("a", 1), "a")] == [0, 0, 1, 0]
    model.eval()
    assert model.cached("a", make) == 0
    model.invalidate()
    assert model.cached("a", make) == 2 and made == [0, 1, 2]


def test_what_failed_is_tried_again(model: LatentModel) -> None:
    with pytest.raises(ZeroDivisionError):
        model.cached("a", lambda: 1 // 0)
    assert model.cached("a", lambda: 3) == 3


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_engines_share_copies_and_verdict_until_weights_change(
    model: LatentModel, change: Callable[[LatentModel], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    probes, inner = [], opening._probe

    def probe(model: LatentModel) -> tuple[float, float]:
        probes.append(model)
        return inner(model)

    monkeypatch.setattr(opening, "_probe", probe)
    copies = [hooked_copy(model, ROUTER), hooked_copy(model, None)]
    for _ in range(3):
        assert engine_for(model).kind == "paged"
    assert len(probes) == 1
    assert copies == [hooked_copy(model, ROUTER), hooked_copy(model, None)]
    change(model)
    assert engine_for(model).kind == "paged"
    assert len(probes) == 2
    assert copies[0] is not hooked_copy(model, ROUTER) and copies[1] is not hooked_copy(model, None)


def test_copies_with_adapters_on_the_fly_are_others(model: LatentModel) -> None:
    fused = hooked_copy(model, ROUTER)
    model.fuse = False
    assert hooked_copy(model, ROUTER) is not fused
    model.fuse = True
    assert hooked_copy(model, ROUTER) is fused


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "on-the-fly"])
def test_a_search_after_a_change_writes_with_the_new_weights(tiny_llama: Path, fuse: bool) -> None:
    model = sharpen(tiny_model(tiny_llama))
    model.fuse = fuse
    order = SpanRequest([0, 0], [1, 2], torch.ones(2, Z_DIM), torch.tensor([True, False]))

    def write(paged: bool) -> list[list[int]]:
        return engine_for(model, paged=paged).write(order).spans

    first = write(True)
    assert first == write(True) == write(False)
    stir(model, seed=5, std=0.5)
    assert write(True) == write(False) != first


def test_gradients_pass_through_what_was_first_asked_for_without_them(model: LatentModel) -> None:
    with torch.inference_mode():
        model.fused(ROUTER)
        assert model.continuation_tokens.any()
    z = torch.ones(1, Z_DIM, requires_grad=True)
    ids = torch.tensor([[1, 2, 3]])
    model.router_logits(ids, z, ids).sum().backward()
    assert z.grad is not None and bool(z.grad.any())
    assert not model.continuation_tokens.is_inference()
