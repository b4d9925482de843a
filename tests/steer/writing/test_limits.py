"""Drawing the next token: limits by row, the penalty's look back, and noise by step."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from steer.errors import SamplingError
from steer.noise import RowNoise
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig, sample_with
from steer.writing.token_sampler import PENALTY_WINDOW, TokenSampler

VOCAB, EOS, INSIDE, COLON = 12, 11, 5, 6
WORDS = {0: "\n", 1: "Max", 2: " Fox", 3: " ran", 4: " to", COLON: ":"}
MODEL: Any = SimpleNamespace(
    tokenizer=SimpleNamespace(eos_token_id=EOS, decode=lambda ids: "".join(WORDS[i] for i in ids)),
    continuation_tokens=torch.arange(VOCAB) == INSIDE,
    colons=torch.arange(VOCAB) == COLON,
    control_tokens=torch.zeros(VOCAB, dtype=torch.bool),
    device="cpu",
)
NOISE = RowNoise((1, 2, 3))
PLAIN = SamplingConfig(temperature=0.7, top_p=1.0)
FREE = Limits(plays=True)


def logits(best: int | None = None) -> Tensor:
    """Of three rows; `best` is the likeliest in all of them by far."""
    values = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    if best is not None:
        values[:, best] = 50.0
    return values


def draw(values: Tensor, before: Sequence[Sequence[int]] | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """With defaults, and nobody asked for what was written where `before` is None."""

    def written() -> Sequence[Sequence[int]]:
        assert before is not None, "asked without a penalty"
        return before

    settings = {"sampling": PLAIN, "limits": FREE, "at_start": False, **options}
    tokens = [torch.zeros(3, dtype=torch.long)] * settings.pop("step", 0)
    sampler = TokenSampler(MODEL, noise=NOISE, visible=written, **settings)
    allowed = sampler._limited(values.clone(), tokens, lambda: sampler._rows(tokens))
    return sampler(values, tokens)[0], allowed


def test_without_limits_it_is_a_plain_sample_at_that_step() -> None:
    for step in (0, 4, 5):
        ids, allowed = draw(logits(), step=step)
        assert torch.equal(ids, sample_with(PLAIN, logits(), noise=NOISE.gumbel(step, VOCAB)))
        assert torch.equal(allowed, logits())


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_end_token_is_drawn_only_where_stories_may_end(temperature: float) -> None:
    sampling = SamplingConfig(temperature=temperature)
    assert draw(logits(EOS), sampling=sampling)[0].tolist() == [EOS] * 3
    ids, allowed = draw(logits(EOS), sampling=sampling, limits=Limits(may_end=False, plays=True))
    assert EOS not in ids.tolist()
    assert bool((allowed[:, EOS] == -torch.inf).all()) and bool(torch.isfinite(allowed[:, :EOS]).all())


def test_words_are_not_gone_on_with_at_the_start_of_each_row() -> None:
    whole = Limits(whole_words=True, plays=True)
    assert draw(logits(INSIDE), limits=whole)[0].tolist() == [INSIDE] * 3
    assert INSIDE not in draw(logits(INSIDE), limits=whole, at_start=True)[0].tolist()
    ids, allowed = draw(logits(INSIDE), limits=whole, at_start=torch.tensor([True, False, True]))
    assert ids[1] == INSIDE and INSIDE not in ids[[0, 2]].tolist()
    assert (allowed == -torch.inf).nonzero().tolist() == [[0, INSIDE], [2, INSIDE]]
    assert draw(logits(INSIDE), at_start=True)[0].tolist() == [INSIDE] * 3


@pytest.mark.parametrize(
    ("row", "free"),
    [
        ([1], False),
        ([1, 2], False),
        ([3, 0, 1], False),
        ([3] * 20 + [0, 0, 1, 2], False),
        ([1, 3], True),
        ([3, 4, 2], True),
        ([3] * 20 + [2], True),
        ([1, 0], True),
        ([], True),
        ([1, COLON, 3, 0, 2], True),
        ([3, COLON, 3, 0, 2], False),
    ],
)
def test_prose_does_not_turn_into_a_play(row: list[int], free: bool) -> None:
    prose = Limits(plays=False)
    ids, allowed = draw(logits(COLON), [row, [3, 4], row], limits=prose)
    assert (ids.tolist()[0] == COLON) is free and ids.tolist()[1] == COLON
    assert bool(torch.isfinite(allowed[0, COLON])) is free
    assert draw(logits(COLON))[0].tolist() == [COLON] * 3


def test_a_penalty_looks_at_each_rows_own_tokens_and_not_too_far_back() -> None:
    sampling = SamplingConfig(temperature=0, repetition_penalty=1e6)
    recent = [9] * (PENALTY_WINDOW - 1)
    ids, allowed = draw(logits(7), [[7], [], [7, *recent, 9]], sampling=sampling)
    assert ids[0] != 7 and ids[1:].tolist() == [7, 7]
    assert torch.equal(allowed, logits(7))
    # Token 0 was not written: shorter rows are padded with nothing.
    assert draw(logits(0), [[1, 2, 3], [4], []], sampling=sampling)[0].tolist() == [0, 0, 0]


def test_numbers_that_are_none_are_refused() -> None:
    values = logits()
    values[1, 3] = torch.nan
    with pytest.raises(SamplingError, match="row 1 holds nan"):
        draw(values)
