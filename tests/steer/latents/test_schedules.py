"""Schedules: their ends, their shape, and what they refuse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.errors import GuidanceError
from steer.latents.mixing import mix
from steer.latents.pull import Pull
from steer.latents.schedules import (
    SCHEDULES,
    ScheduleConfig,
    bridge,
    constant,
    cosine,
    linear,
    linear_bigvae,
    make_schedule,
)

STEPS = st.integers(1, 40)
WEIGHT = st.floats(0, 1, width=32)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@given(n=STEPS)
@settings(max_examples=20, deadline=None)
def test_every_schedule_is_a_float32_row_of_weights_that_never_falls(name: str, n: int):
    weights = make_schedule(name, n)
    assert weights.shape == (n,)
    assert weights.dtype == torch.float32
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert bool((weights.diff() >= 0).all())


@pytest.mark.parametrize("make", [linear, cosine, bridge])
@given(n=STEPS, start=WEIGHT, end=WEIGHT)
@settings(max_examples=40, deadline=None)
def test_ramps_arrive_at_their_end(make, n: int, start: float, end: float):
    weights = make(n, start=start, end=end)
    assert weights[-1].item() == pytest.approx(end, abs=1e-7)
    low, high = min(start, end) - 1e-6, max(start, end) + 1e-6
    assert bool(((weights >= low) & (weights <= high)).all())


@pytest.mark.parametrize("make", [linear, cosine, bridge])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 33])
def test_ramps_to_one_end_at_exactly_one(make, n: int):
    assert make(n, start=0.3, end=1.0)[-1].item() == 1.0


def test_by_hand():
    assert constant(3, start=0.25).tolist() == [0.25] * 3
    torch.testing.assert_close(linear(3, start=0.1, end=0.9), torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(bridge(4), torch.tensor([0.25, 0.5, 0.75, 1.0]), rtol=0, atol=0)
    torch.testing.assert_close(cosine(3), torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(linear_bigvae(5), torch.tensor([0.15, 0.25, 0.35, 0.45, 0.55]))
    torch.testing.assert_close(linear_bigvae(5, step_size=0.025)[-1], torch.tensor(0.175))
    assert linear_bigvae(40)[-1].item() == 1.0


def test_bridge_noise_of_a_mix_matches_simulated_bridges():
    n = 8
    generator = torch.Generator().manual_seed(0)
    walks = (torch.randn(20_000, n, generator=generator) / math.sqrt(n)).cumsum(1)
    bridges = walks - torch.arange(1, n + 1) / n * walks[:, -1:]
    pull, zero = Pull(torch.zeros(1), bridge(n)), torch.zeros(1, 1)
    spread = [mix(zero, [pull], step, noise=torch.ones(1, 1), rescale="none").item() for step in range(n)]
    torch.testing.assert_close(torch.tensor(spread), bridges.std(0), rtol=0.03, atol=1e-6)
    assert spread[-1] == 0.0


def test_config_makes_the_named_schedule():
    assert torch.equal(ScheduleConfig("linear", start=0.2, end=0.4).weights(5), linear(5, start=0.2, end=0.4))
    assert torch.equal(ScheduleConfig("cosine").weights(5), cosine(5))
    assert torch.equal(ScheduleConfig("constant", start=0.3).weights(2), constant(2, start=0.3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_schedule("sine", 3), r"unknown schedule 'sine'; expected one of bridge, constant, cosine"),
        (lambda: make_schedule("constant", 3, end=1.0), r"'constant' has no option end; it takes start"),
        (lambda: linear(0), r"at least one step.*n=0"),
        (lambda: bridge(2.0), r"at least one step.*n=2.0"),  # pyright: ignore[reportArgumentType]
        (lambda: bridge(-1), r"at least one step.*n=-1"),
        (lambda: linear(3, end=1.5), r"end=1.5 is outside \[0, 1\].*avoid=True"),
        (lambda: constant(3, start=-0.1), r"start=-0.1 is outside"),
        (lambda: cosine(3, start=float("nan")), r"start=nan is outside"),
        (lambda: ScheduleConfig("constant", end=0.5), r"has no option end"),
        (lambda: ScheduleConfig("wave"), r"unknown schedule 'wave'"),
    ],
)
def test_refusals_say_what_is_wrong(call, message: str):
    with pytest.raises(GuidanceError, match=message):
        call()
