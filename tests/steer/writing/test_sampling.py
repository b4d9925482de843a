"""Sampling: exact distributions, filters against slow oracles, and noise that does not depend on the batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steer.errors import SamplingError
from steer.noise import RowNoise, _gumbel_, derive_seed
from steer.writing.sampling import (
    SamplingConfig,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    penalize_repetition,
    sample,
    sample_with,
)

NAN, INF = float("nan"), float("inf")


def random_logits(batch: int, vocab_size: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(batch, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale


def gumbel_noise(rows: int, vocab_size: int, seed: int) -> Tensor:
    return RowNoise(tuple(derive_seed(seed, row) for row in range(rows))).gumbel(0, vocab_size)


def kept(logits: Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in logits]


def nucleus(row: list[float], top_p: float) -> set[int]:
    """The smallest set of likeliest tokens that reaches `top_p`, counted one by one."""
    weights = [math.exp(x - max(row)) for x in row]
    tokens, mass = set(), 0.0
    for token in sorted(range(len(row)), key=lambda token: -row[token]):
        if mass >= top_p * sum(weights):
            break
        tokens.add(token)
        mass += weights[token]
    return tokens


def chi_square(ids: Tensor, probs: Tensor) -> float:
    counts = torch.bincount(ids, minlength=len(probs)).double()
    expected = probs.double() * len(ids)
    return ((counts - expected) ** 2 / expected).sum().item()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("source", ["steps", "rows"])
def test_draws_follow_the_softmax(temperature: float, source: str):
    logits, draws = random_logits(1, 12, scale=1.0), 20_000
    if source == "rows":
        noise = gumbel_noise(draws, 12, seed=1)
    else:
        noise = RowNoise((derive_seed("draws"),) * draws).gumbel(range(draws), 12)
    ids = sample(logits.expand(draws, -1), noise=noise, temperature=temperature)
    # 11 degrees of freedom: above 31.3 once in a thousand times.
    assert chi_square(ids, torch.softmax(logits[0] / temperature, -1)) < 31.3


@given(temperature=st.floats(0.1, 5), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_a_draw_is_the_argmax_of_scaled_logits_and_noise(temperature: float, seed: int):
    logits = random_logits(4, 50, seed)
    noise = gumbel_noise(4, 50, seed=seed)
    assert torch.equal(sample(logits, noise=noise, temperature=temperature), (logits / temperature + noise).argmax(-1))


def test_sampling_leaves_its_arguments_alone():
    logits, noise = random_logits(2, 9), gumbel_noise(2, 9, seed=0)
    before = logits.clone(), noise.clone()
    sample(logits, noise=noise, temperature=1.0, top_k=3, top_p=0.9, min_p=0.1)
    assert torch.equal(logits, before[0])
    assert torch.equal(noise, before[1])


def test_greedy_takes_the_likeliest_and_needs_no_noise():
    logits = random_logits(5, 30)
    assert torch.equal(sample(logits, temperature=0), logits.argmax(-1))
    assert torch.equal(sample(logits.bfloat16(), temperature=0), logits.bfloat16().argmax(-1))
    assert sample(torch.zeros(1, 4), temperature=0).tolist() == [0]


@pytest.mark.parametrize("vocab_size", [5, 40, 700])
@pytest.mark.parametrize("scale", [0.01, 3.0])
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999])
def test_top_p_keeps_the_nucleus(vocab_size: int, scale: float, top_p: float):
    logits = random_logits(3, vocab_size, seed=vocab_size, scale=scale)
    assert kept(filter_top_p(logits, top_p)) == [nucleus(row, top_p) for row in logits.tolist()]


def test_filters_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    assert kept(filter_top_k(logits, 2)) == [{0, 1}]
    assert kept(filter_top_p(logits, 0.6)) == [{0, 1}]
    assert kept(filter_top_p(logits, 0.2)) == [{0}]
    assert kept(filter_min_p(logits, 0.28)) == [{0, 1, 2}]
    assert kept(filter_min_p(logits, 1.0)) == [{0}]


def test_filters_switched_off_return_their_input():
    logits = random_logits(2, 9)
    for same in (
        filter_top_k(logits, 0),
        filter_top_k(logits, 9),
        filter_top_p(logits, 1.0),
        filter_min_p(logits, 0.0),
        penalize_repetition(logits, torch.zeros(2, 3, dtype=torch.int64), 1.0),
    ):
        assert same is logits


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"top_k": 2}, lambda x: filter_top_k(x, 2)),
        ({"top_p": 0.5}, lambda x: filter_top_p(x, 0.5)),
        ({"min_p": 0.3}, lambda x: filter_min_p(x, 0.3)),
        ({"top_k": 5, "top_p": 0.8}, lambda x: filter_top_p(filter_top_k(x, 5), 0.8)),
    ],
)
def test_sampling_draws_what_its_filters_keep_in_proportion(options, allowed):
    logits, draws = random_logits(1, 10, seed=4, scale=1.0), 8000
    noise = gumbel_noise(draws, 10, seed=2)
    ids = sample(logits.expand(draws, -1), noise=noise, **options)
    probs = torch.softmax(allowed(logits)[0], -1)
    assert set(ids.tolist()) == set(probs.nonzero()[:, 0].tolist())
    assert chi_square(ids, probs + 1e-12) < 30


@given(seed=st.integers(0, 999), batch=st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_a_row_draws_the_same_alone_and_in_a_batch(seed: int, batch: int):
    logits = random_logits(batch, 301, seed)
    rows = RowNoise(tuple(derive_seed(seed, i) for i in range(batch)))
    config = SamplingConfig(top_k=40, top_p=0.9, min_p=0.02)
    together = sample_with(config, logits, noise=rows.gumbel(3, 301))
    for i in range(batch):
        alone = sample_with(config, logits[i : i + 1], noise=rows.select([i]).gumbel(3, 301))
        assert alone.item() == together[i].item()


def test_row_noise_depends_on_seed_and_step_only():
    noise = RowNoise((11, 22, 33))
    full = noise.gumbel(5, 100)
    assert torch.equal(noise.select([2, 0]).gumbel(5, 100), full[[2, 0]])
    assert torch.equal(noise.gumbel([5, 6, 5], 100)[[0, 2]], full[[0, 2]])
    assert torch.equal(RowNoise((11, 22, 33)).gumbel(5, 100), full)
    assert not torch.equal(noise.gumbel(6, 100), full)
    assert full.unique().numel() > 295
    # A longer vocabulary keeps the tokens it shares.
    assert torch.equal(noise.gumbel(5, 200)[:, :100], full)


def test_normal_noise_is_standard_and_unrelated_to_the_gumbel_noise():
    noise = RowNoise(tuple(derive_seed("z", i) for i in range(40)))
    normal, gumbel = noise.normal(0, 500), noise.gumbel(0, 500)
    assert normal.mean().item() == pytest.approx(0, abs=0.03)
    assert normal.std().item() == pytest.approx(1, abs=0.03)
    assert abs(torch.corrcoef(torch.stack([normal.flatten(), gumbel.flatten()]))[0, 1].item()) < 0.03


def test_gumbel_noise_is_standard_finite_float32():
    noise = gumbel_noise(500, 400, seed=0)
    assert noise.dtype == torch.float32
    assert bool(noise.isfinite().all())
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.02)


def test_gumbel_noise_stays_finite_where_a_uniform_is_zero_or_one():
    assert bool(_gumbel_(torch.tensor([[0.0, 1.0, 0.5]])).isfinite().all())


def test_derived_seeds():
    assert derive_seed("run", 7, "child", 0) == derive_seed("run", 7, "child", 0)
    parts = [(), ("",), ("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (-1,), (1, 2), (12,), (2, 1), (2**80,)]
    seeds = {derive_seed(*each) for each in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_are_the_same_in_every_process():
    # Stored runs are resumed from their seeds: this number may never change.
    assert derive_seed("run", 7) == 7823024545469804054


def test_repetition_penalty_by_hand():
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5], [2.0, -2.0, 1.0, 0.5]])
    previous = torch.tensor([[0, 1, 1], [3, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    expected = torch.tensor([[1.0, -4.0, 1.0, 0.5], [2.0, -2.0, 1.0, 0.25]])
    assert torch.equal(penalize_repetition(logits, previous, 2.0, mask=mask), expected)
    config = SamplingConfig(temperature=0, repetition_penalty=4.0)
    assert sample_with(config, logits, previous=previous, mask=mask).tolist() == [2, 0]
    assert sample_with(config, logits).tolist() == [0, 0]


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.1}, {"temperature": 0}])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([1.0, NAN, 0.0, 0.0], "row 1 holds nan"),
        ([1.0, INF, 0.0, 0.0], "row 1 holds (inf|nan)"),
        ([-INF] * 4, "row 1 has no token left"),
    ],
)
def test_bad_logits_are_refused_by_row(bad: list[float], message: str, options: dict):
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], bad])
    with pytest.raises(SamplingError, match=message):
        sample(logits, noise=torch.zeros(2, 4), **options)


def test_forbidden_tokens_are_never_drawn():
    logits = torch.tensor([[-INF, 0.0, -INF, 0.0]]).expand(500, -1)
    noise = gumbel_noise(500, 4, seed=0)
    drawn = [
        sample(logits, noise=noise),
        sample(logits, noise=noise, top_k=3),
        sample(logits, noise=noise, top_p=0.99),
        sample(logits, noise=noise, min_p=0.5),
    ]
    assert all(set(ids.tolist()) == {1, 3} for ids in drawn)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SamplingConfig(temperature=-1), "temperature is 0 .* got -1"),
        (lambda: SamplingConfig(temperature=1e-9), "temperature is 0 .* got 1e-09"),
        (lambda: SamplingConfig(temperature=NAN), "temperature is 0 .* got nan"),
        (lambda: SamplingConfig(top_k=-1), "top_k is an int of at least 0"),
        (lambda: SamplingConfig(top_k=1.5), "top_k is an int"),  # pyright: ignore[reportArgumentType]
        (lambda: SamplingConfig(top_p=0), r"top_p lies in \(0, 1\]"),
        (lambda: SamplingConfig(min_p=1.2), r"min_p lies in \[0, 1\]"),
        (lambda: SamplingConfig(repetition_penalty=0), "repetition_penalty is finite and above 0"),
        (lambda: sample(torch.zeros(3), temperature=0), r"float \[B, V\]; got \[3\].*logits\[:, -1\]"),
        (lambda: sample(torch.zeros(2, 3, dtype=torch.int64), temperature=0), "got .* of torch.int64"),
        (lambda: sample(torch.zeros(2, 3)), "temperature 1.0 needs noise"),
        (lambda: sample(torch.zeros(2, 3), noise=torch.zeros(3)), r"logits' shape \[2, 3\]; got \[3\]"),
        (lambda: sample(torch.zeros(2, 3), noise=torch.zeros(2, 3), top_p=1.5), "top_p lies in"),
        (lambda: RowNoise((-1,)), "seed lies in"),
        (lambda: RowNoise((1, 2)).gumbel([0], 5), "or 2, one per row"),
        (lambda: RowNoise((1, 2)).gumbel(-1, 5), "step of at least 0"),
        (lambda: derive_seed(1.5), "ints and strings; got 1.5 of float"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_refusals_say_what_is_wrong(call, message: str):
    with pytest.raises(SamplingError, match=message):
        call()
