"""Arguments of wrong types: each is refused with a `SteerError` that names what came and what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import steer
import steer.search
from steer import (
    LatentModel,
    SamplingConfig,
    SteerError,
    apply_op,
    fresh_model,
    make_schedule,
    mix,
    slerp,
)
from steer.search.action import Action
from steer.search.budget import Budget
from tests.steer.tiny import tiny_model

# Of no type, since all that is handed over here is of a wrong one.
write_guided: Any = steer.write_guided
write_searched: Any = steer.search.write_searched


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama)


OF_A_MODEL: list[tuple[Callable, str]] = [
    (lambda m: m.encode(None), "text to encode: expected a text or a list of texts, got NoneType"),
    (lambda m: m.encode(3), "got int"),
    (lambda m: m.encode(b"A fox."), "got bytes"),
    (lambda m: m.encode(["A fox.", None]), "expected text, got NoneType"),
    (lambda m: m.encode("A fox.", long=True), "long=True is unknown; expected 'error', 'truncate' or 'mean'"),
    (lambda m: m.encode("A fox.", batch_size=0), "batch_size is .* at least 1; got 0"),
    (lambda m: m.encode("A fox.", batch_size="many"), "batch_size is .* got 'many'"),
    (lambda m: m.encode_ids([5, 6, 7]), r"row 0 .*: expected a list of token ids, got 5 of int"),
    (lambda m: m.encode_ids(5), r"expected rows of token ids, such as \[\[5, 6, 7\]\]; got 5"),
    (lambda m: m.encode_ids("abc"), "expected rows of token ids"),
    (lambda m: m.encode_ids([[1.5]]), "expected a list of token ids"),
    (lambda m: m.encode_ids([[3], [10**9]]), "row 1 .*: there is no token id 1000000000; expected 0 to 257"),
    (lambda m: m.encode_ids([[-1]]), "there is no token id -1"),
    (lambda m: m.to_text([5, 6, 10**9]), "there is no token id 1000000000"),
    (lambda m: m.to_text("abc"), "expected a list of token ids, got 'abc' of str"),
    (lambda m: m.to_text(5), "got 5 of int"),
    (lambda m: m.to_ids(None), "expected text, got NoneType"),
]

OF_LOADING: list[tuple[Callable, str]] = [
    (lambda base: fresh_model(base, dtype="float33"), "dtype 'float33' is no floating-point type; use float32"),
    (lambda base: fresh_model(base, dtype=3), "dtype 3 is no"),
    (lambda base: fresh_model(base, device="gpu"), "device 'gpu' cannot be used: .*; expected cpu"),
    (lambda base: fresh_model(base, device=3.5), "device 3.5 cannot be used"),
    (lambda base: fresh_model(base, torch_dtype="auto"), "no option 'torch_dtype'; did you mean 'dtype'"),
    (lambda base: LatentModel.from_pretrained("llama-fable-6m", torch_dtype="auto"), "did you mean 'dtype'"),
    (lambda base: LatentModel.from_pretrained("llama-fable-6m", colour=1), "no option 'colour'; expected one of base"),
    (lambda base: LatentModel.from_minihf("nowhere", torch_dtype="auto"), "did you mean 'dtype'"),
    (lambda base: LatentModel.from_pretrained(None), "no model folder at 'None'"),  # pyright: ignore
    (lambda base: LatentModel.from_pretrained(3), "no model folder at '3'"),  # pyright: ignore
]


def searched(model: LatentModel, **options: Any) -> Any:
    return write_searched(model, ["Tom"], **{"spans": 1, "budget": Budget(nodes=2), "policy": "best_of_n", **options})


OF_WRITING: list[tuple[Callable, str]] = [
    (lambda m: write_guided("llama-fable-6m", ["Tom"]), "model is 'llama-fable-6m' of str; expected a LatentModel"),
    (lambda m: write_searched(None, ["Tom"]), "model is None of NoneType"),
    (lambda m: write_guided(m, None), "contexts is None of NoneType; expected a list of texts"),
    (lambda m: write_guided(m, ["Tom"], pulls=m.encode("A fox.")), "pulls holds .* expected Pull"),
    (lambda m: write_guided(m, ["Tom"], seeds="abc"), "seeds are an integer, or one for each row; got 'abc'"),
    (lambda m: write_guided(m, ["Tom"], seeds=1.5), "seeds are an integer"),
    (lambda m: write_guided(m, ["Tom"], seeds=[-1]), "a seed lies in"),
    (lambda m: write_guided(m, ["Tom"], sampling={"temperature": 0.5}), "sampling must be a SamplingConfig; got"),
    (lambda m: write_guided(m, ["Tom"], limits=3), "limits must be a Limits; got 3"),
    (lambda m: write_guided(m, ["Tom"], guidance_scale=-1), r"guidance_scale lies in \[0, 20\]"),
    (lambda m: write_guided(m, ["Tom"], guidance_scale="x"), "guidance_scale must be a number"),
    (lambda m: write_guided(m, ["Tom"], temperature=0.5), "there is no option temperature"),
    (lambda m: searched(m, budget=8), "a search needs a budget: budget=Budget"),
    (lambda m: searched(m, menu=[(1, 1.5)]), "a menu is a list of Action"),
    (lambda m: searched(m, menu=Action(1)), "a menu is a list of Action"),
    (lambda m: searched(m, pulls=3), "pulls holds 3 of int"),
    (lambda m: searched(m, policy=3), "unknown policy 3"),
    (lambda m: searched(m, policy_options=3), "options of a policy are a dict"),
    (lambda m: searched(m, terminals=3), "expected terminals"),
    (lambda m: searched(m, avoid="rain"), "avoid is the text 'rain'"),
    (lambda m: searched(m, tree=3), "tree is 3 of int"),
    (lambda m: Budget(nodes="x"), "a budget is above 0, in numbers"),  # pyright: ignore
    (lambda m: Action("x"), "strength lies in"),  # pyright: ignore
    (lambda m: SamplingConfig(temperature="hot"), "temperature is 0 .* got 'hot'"),  # pyright: ignore
    (lambda m: SamplingConfig(top_p=None), "top_p lies in .* got None"),  # pyright: ignore
    (lambda m: SamplingConfig(min_p="x"), "min_p lies in"),  # pyright: ignore
    (lambda m: SamplingConfig(repetition_penalty="x"), "repetition_penalty is finite"),  # pyright: ignore
    (lambda m: make_schedule(["bridge"], 4), "unknown schedule"),  # pyright: ignore
    (lambda m: make_schedule("bridge", 4, end="x"), "end='x' is outside"),  # pyright: ignore
    (lambda m: mix(m.encode("A fox."), [], 1.5), "a step is an int"),  # pyright: ignore
    (lambda m: mix(m.encode("A fox."), [], 0, rescale=None), "a norm to rescale to"),  # pyright: ignore
    (lambda m: slerp([1.0], [2.0], "x"), "expected a number, or one per row; got 'x'"),  # pyright: ignore
    (lambda m: apply_op([1.0], [1.0], [2.0], "x"), "strength is a number"),  # pyright: ignore
]


@pytest.mark.parametrize(("call", "message"), OF_WRITING)
def test_writing_refuses(model: LatentModel, call: Callable, message: str):
    with pytest.raises(SteerError, match=message):
        call(model)


@pytest.mark.parametrize(("call", "message"), OF_A_MODEL)
def test_a_model_refuses(model: LatentModel, call: Callable, message: str):
    with pytest.raises(SteerError, match=message):
        call(model)


@pytest.mark.parametrize(("call", "message"), OF_LOADING)
def test_loading_refuses(tiny_llama: Path, call: Callable, message: str):
    with pytest.raises(SteerError, match=message):
        call(tiny_llama)


def test_a_gpu_that_is_not_there_is_told(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SteerError, match="device 'cuda' cannot be used: .*; expected cpu .this torch sees no GPU."):
        fresh_model(tiny_llama, device="cuda")


def test_token_ids_come_as_lists_arrays_or_tensors(model: LatentModel):
    import numpy as np
    import torch

    wanted = model.encode_ids([[5, 6, 7], [8]])
    assert torch.equal(model.encode_ids([np.array([5, 6, 7]), np.array([8])]), wanted)
    assert torch.equal(model.encode_ids([torch.tensor([5, 6, 7]), torch.tensor([8])]), wanted)
    torch.testing.assert_close(model.encode_ids(np.array([[5, 6, 7]])), wanted[:1])
    assert model.to_text(torch.tensor(model.to_ids("A fox."))) == "A fox."
