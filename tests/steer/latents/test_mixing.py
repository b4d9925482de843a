"""The laws of guidance, as properties; BigVAE's mixes against their formulas and against MiniHF's own numbers."""

import itertools
import os
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from steer.errors import GuidanceError
from steer.latents.bigvae import annealed_blends, guide, topic_sentence
from steer.latents.mixing import apply_op, mix, slerp, task_vector
from steer.latents.pull import Pull
from steer.latents.schedules import bridge, constant, linear
from steer.writing.classifier_free import classifier_free_guidance

RESCALES = ["mean", "none", "draft", 50.0]
METHODS: list[Literal["linear", "slerp"]] = ["linear", "slerp"]
EVERY_MIX = pytest.mark.parametrize(("rescale", "method"), list(itertools.product(RESCALES, METHODS)))
WEIGHT = st.floats(0, 1, width=32)
QUICK = settings(max_examples=8, deadline=None)


def random(*shape: int, seed: int = 0, scale: float = 1.3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def weights(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))


@st.composite
def rows(draw, width: int | None = None) -> Tensor:
    """Latents `[B, z]` of mixed sizes, with exact and negative zeros among them."""
    batch, width = draw(st.integers(1, 5)), width or draw(st.integers(1, 33))
    scale = draw(st.sampled_from([1e-3, 1.0, 40.0]))
    latents = random(batch, width, seed=draw(st.integers(0, 999)), scale=scale)
    if draw(st.booleans()):
        latents[:, 0] = -0.0
    if draw(st.booleans()):
        latents[0] = 0.0
    return latents


@EVERY_MIX
@given(draft=rows(), seed=st.integers(0, 99))
@QUICK
def test_zero_weight_is_the_draft(draft: Tensor, seed: int, rescale, method):
    width = draft.shape[1]
    pulls = [
        Pull(random(width, seed=seed), weights(0)),
        Pull(random(*draft.shape, seed=seed + 1), weights(0)),
        Pull(draft.clone(), weights(0), avoid=True),
    ]
    for few in (pulls, pulls[:1], []):
        noise = torch.Generator().manual_seed(seed)
        assert same_bits(mix(draft, few, 0, rescale=rescale, method=method, noise=noise), draft)


@EVERY_MIX
@given(draft=rows(width=12), terminal=rows(width=12))
@QUICK
def test_weight_one_is_the_terminal(draft: Tensor, terminal: Tensor, rescale, method):
    pulls = [
        Pull(random(12, seed=1), weights(0)),
        Pull(terminal[0], weights(1)),
        Pull(random(12, seed=2), weights(0.5), avoid=True),
    ]
    noise = torch.Generator().manual_seed(0)
    mixed = mix(draft, pulls, 0, rescale=rescale, method=method, noise=noise)
    assert same_bits(mixed, terminal[:1].expand_as(draft).contiguous())


@EVERY_MIX
@given(
    draft=rows(width=16), shares=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), seed=st.integers(0, 99)
)
@QUICK
def test_order_of_pulls_is_irrelevant(draft: Tensor, shares: list[float], seed: int, rescale, method):
    near = random(16, seed=seed)
    latents = [near, near + 0.1 * random(16, seed=seed + 1), random(16, seed=seed + 2), -near]
    pulls = [Pull(z, weights(w), avoid=i in (0, 1)) for i, (z, w) in enumerate(zip(latents, shares, strict=True))]
    expected = mix(draft, pulls, 0, rescale=rescale, method=method)
    turned = [pulls[i:] + pulls[:i] for i in (1, 2, 3)]  # every pull stands in every place
    for order in (*turned, pulls[::-1], [pulls[1], pulls[0], *pulls[2:]]):
        mixed = mix(draft, order, 0, rescale=rescale, method=method)
        torch.testing.assert_close(mixed, expected, rtol=1e-6, atol=1e-6)


@EVERY_MIX
@given(batch=st.integers(2, 9), width=st.sampled_from([3, 16, 257, 768]), seed=st.integers(0, 999))
@QUICK
def test_a_row_does_not_depend_on_its_batch(batch: int, width: int, seed: int, rescale, method):
    draft, own = random(batch, width, seed=seed), random(batch, width, seed=seed + 1)
    shared, noise = random(width, seed=seed + 2), random(batch, width, seed=seed + 3)
    share = torch.rand(batch, 3, generator=torch.Generator().manual_seed(seed))

    def pulls(at: slice) -> list[Pull]:
        avoid = [Pull(own[at] + draft[at], weights(0, 0.7, 1), avoid=True), Pull(draft[at], share[at], avoid=True)]
        return [Pull(own[at], share[at]), Pull(shared, linear(3)), *avoid]

    together = mix(draft, pulls(slice(None)), 1, rescale=rescale, method=method, noise=noise)
    for i in range(batch):
        at = slice(i, i + 1)
        assert same_bits(mix(draft[at], pulls(at), 1, rescale=rescale, method=method, noise=noise[at]), together[at])


@EVERY_MIX
@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("weight", [0.0, 1e-7, 0.5, 1.0])
def test_zero_and_opposite_vectors_give_finite_latents(width: int, weight: float, rescale, method):
    last = torch.zeros(width)
    last[-1] = 2.0
    draft = torch.stack([torch.zeros(width), last, -last, random(width), 1e18 * random(width), 1e-18 * random(width)])
    for other in (draft, -draft, torch.zeros_like(draft), draft.flip(0)):
        for avoid in (False, True):
            pulls = [Pull(other, weights(weight), avoid=avoid), Pull(-other, weights(weight))]
            for few in (pulls, pulls[:1]):
                assert bool(torch.isfinite(mix(draft, few, 0, rescale=rescale, method=method)).all())


@pytest.mark.parametrize("method", METHODS)
def test_the_norm_of_a_mix_is_the_weighted_mean_of_what_went_in(method):
    draft, terminal = random(4, 64), 3 * random(4, 64, seed=1)
    pulls = [Pull(terminal, weights(0.25)), Pull(random(64, seed=2), weights(0.25))]
    expected = 0.5 * draft.norm(dim=1) + 0.25 * terminal.norm(dim=1) + 0.25 * random(64, seed=2).norm()
    torch.testing.assert_close(mix(draft, pulls, 0, method=method).norm(dim=1), expected)
    torch.testing.assert_close(mix(draft, pulls, 0, method=method, rescale="draft").norm(dim=1), draft.norm(dim=1))
    torch.testing.assert_close(mix(draft, pulls, 0, method=method, rescale=7).norm(dim=1), torch.full((4,), 7.0))


def test_a_linear_mix_without_rescaling_is_the_weighted_sum():
    draft, a, b = random(3, 16), random(16, seed=1), random(3, 16, seed=2)
    mixed = mix(draft, [Pull(a, weights(0.2)), Pull(b, weights(0.3))], 0, rescale="none")
    torch.testing.assert_close(mixed, 0.5 * draft + 0.2 * a + 0.3 * b)


def test_pulls_that_sum_above_one_are_normalised():
    draft, a, b = random(3, 16), random(16, seed=1), random(16, seed=2)
    mixed = mix(draft, [Pull(a, weights(0.9)), Pull(b, weights(0.6))], 0, rescale="none")
    torch.testing.assert_close(mixed, (0.6 * a + 0.4 * b).expand(3, -1))


def test_one_schedule_per_row():
    draft, terminal = random(3, 16), random(16, seed=1)
    mixed = mix(draft, [Pull(terminal, torch.tensor([[0.0], [1.0], [0.5]]))], 0)
    assert same_bits(mixed[0], draft[0])
    assert same_bits(mixed[1], terminal)
    assert same_bits(mixed[2:], mix(draft[2:], [Pull(terminal, weights(0.5))], 0))


def test_a_bridge_closes_in_on_the_terminal():
    draft, terminal = random(5, 64), random(64, seed=1)
    pulls = [Pull(terminal, bridge(6))]
    for method in METHODS:
        near = [torch.cosine_similarity(mix(draft, pulls, k, method=method), terminal).min() for k in range(6)]
        assert near == sorted(near)
        assert same_bits(mix(draft, pulls, 5, method=method), terminal.expand(5, -1).contiguous())


def test_bridge_noise_has_the_bridges_spread():
    draft = torch.zeros(2000, 8)
    pulls = [Pull(torch.zeros(8), bridge(4))]
    generator = torch.Generator().manual_seed(0)
    for step, std in enumerate([0.75**0.5 / 2, 0.5, 0.75**0.5 / 2, 0.0]):
        mixed = mix(draft, pulls, step, rescale="none", noise=generator, noise_scale=2.0)
        assert mixed.std().item() == pytest.approx(2 * std, rel=0.03)


@given(draft=rows(width=16), avoid=rows(width=16), weight=WEIGHT)
@settings(max_examples=60, deadline=None)
def test_avoid_repels_only_a_draft_that_leans_towards_it(draft: Tensor, avoid: Tensor, weight: float):
    target = avoid[-1]
    moved = mix(draft, [Pull(target, weights(weight), avoid=True)], 0)
    for before, after in zip(draft, moved, strict=True):
        lean, left = torch.cosine_similarity(before, target, dim=0), torch.cosine_similarity(after, target, dim=0)
        if torch.dot(before.double(), target.double()) <= 0:
            assert same_bits(after, before)
        elif lean < 0.99:
            assert -1e-6 <= left <= lean + 1e-6
            torch.testing.assert_close(after.norm(), before.norm(), rtol=1e-5, atol=1e-9)


def test_avoiding_by_hand():
    draft, side = torch.tensor([[3.0, 4.0]]), torch.tensor([2.0, 0.0])
    torch.testing.assert_close(mix(draft, [Pull(side, weights(1), avoid=True)], 0), torch.tensor([[0.0, 5.0]]))
    half = mix(draft, [Pull(side, weights(0.5), avoid=True)], 0)
    torch.testing.assert_close(half, torch.tensor([[1.5, 4.0]]) * 5 / (1.5**2 + 16) ** 0.5)


def test_avoiding_the_same_latent_twice_is_avoiding_it_once():
    draft, side = random(4, 16), random(16, seed=5)
    once = mix(draft, [Pull(side, weights(0.6), avoid=True)], 0)
    twice = mix(draft, [Pull(side, weights(0.6), avoid=True), Pull(2 * side, weights(0.6), avoid=True)], 0)
    torch.testing.assert_close(twice, once)


def test_avoiding_several_latents_leaves_nothing_that_leans_towards_any():
    draft = random(6, 8)
    sides = [random(8, seed=seed) for seed in (1, 2, 3)]
    moved = mix(draft, [Pull(side, weights(1), avoid=True) for side in sides], 0)
    for side in sides:
        assert bool((torch.cosine_similarity(moved, side) < 1e-2).all())


def test_slerp_turns_evenly_and_keeps_the_sphere():
    a, b = random(5, 32), random(5, 32, seed=1)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    angle = torch.acos((a * b).sum(1))
    for t in (0.1, 0.5, 0.8):
        point = slerp(a, b, t)
        torch.testing.assert_close(point.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(torch.acos((a * point).sum(1)), t * angle, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slerp(a, b, 0.3), slerp(b, a, 0.7))
    torch.testing.assert_close(slerp(a, b, torch.full((5,), 0.3)), slerp(a, b, torch.full((5, 1), 0.3)))
    assert same_bits(slerp(a, b, 0.0), a)
    assert same_bits(slerp(a, b, 1.0), b)


@pytest.mark.parametrize("width", [2, 3, 8])
def test_slerp_of_parallel_and_opposite_vectors(width: int):
    a = torch.cat([random(3, width), torch.eye(width)])
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)
    half = slerp(a, -a, 0.5)
    torch.testing.assert_close(half.norm(dim=1), a.norm(dim=1))
    torch.testing.assert_close((half * a).sum(1), torch.zeros(len(a)), rtol=0, atol=1e-5)
    torch.testing.assert_close(slerp(torch.zeros_like(a), a, 0.25), 0.25 * a)
    nearly = -a + 1e-4 * random(len(a), width, seed=3)
    torch.testing.assert_close(slerp(a, nearly, 0.5).norm(dim=1), (a.norm(dim=1) + nearly.norm(dim=1)) / 2)


def test_fixed_mixes_against_their_formulas():
    z, topic, task = random(4, 32), 2 * random(4, 32, seed=1), random(32, seed=2)

    def expected(*parts: tuple[float, Tensor]) -> Tensor:
        out = []
        for i in range(4):
            each = [(w, x if x.ndim == 1 else x[i]) for w, x in parts]
            total = torch.stack([w * x for w, x in each]).sum(0)
            out.append(total / total.norm() * sum(x.norm() for _, x in each) / len(each))
        return torch.stack(out)

    torch.testing.assert_close(guide(z, topic), expected((0.85, z), (0.15, topic)))
    torch.testing.assert_close(guide(z, task), expected((0.85, z), (0.15, task)))
    torch.testing.assert_close(topic_sentence(z, topic, task), expected((0.75, z), (0.1, topic), (0.15, task)))


def test_task_vector_has_the_mean_norm():
    latents = random(20, 16)
    task = task_vector(latents)
    torch.testing.assert_close(task.norm(), latents.norm(dim=1).mean())
    torch.testing.assert_close(torch.cosine_similarity(task, latents.mean(0), dim=0), torch.tensor(1.0))
    torch.testing.assert_close(task_vector(latents[:1]), latents[0])


def test_weights_of_a_task_vector_count_samples_several_times():
    latents = random(3, 16)
    repeated = torch.stack([latents[0], latents[0], latents[0], latents[2]])
    torch.testing.assert_close(task_vector(latents, weights=[3, 0, 1]), task_vector(repeated))
    assert same_bits(task_vector(latents, weights=torch.ones(3)), task_vector(latents))


def test_pulls_take_what_is_at_hand():
    latent, schedule = random(6), constant(4, start=0.25)
    wanted = mix(random(2, 6, seed=1), [Pull(latent, schedule)], 3)
    for same in (
        Pull(latent.tolist(), schedule.tolist()),
        Pull(latent.numpy(), schedule.double().numpy()),
        Pull([*latent], 0.25),
        Pull(tuple(latent.tolist()), torch.tensor(0.25)),
    ):
        assert same_bits(mix(random(2, 6, seed=1), [same], 3), wanted)
        assert same_bits(mix(random(2, 6, seed=1).tolist(), same, 3), wanted)
    assert Pull([0, 3, 4], [1, 0]).latent.dtype == torch.float32
    assert repr(Pull([0, 3, 4], [0.25, 1], avoid=True)) == (
        "Pull(latent [3] of norm 5.00, weights [2] of 0.25 to 1.00, avoid)"
    )


def test_apply_op_is_an_algebra():
    z, source, target = random(4, 16), random(5, 16, seed=1), random(3, 16, seed=2)
    assert same_bits(apply_op(z, source, target, 0), z)
    torch.testing.assert_close(apply_op(z, source, source), z)
    moved = apply_op(z, source, target, 0.5)
    torch.testing.assert_close(moved.norm(dim=1), z.norm(dim=1))
    raw = z + 0.5 * (target.mean(0) - source.mean(0))
    torch.testing.assert_close(torch.cosine_similarity(moved, raw), torch.ones(4))
    torch.testing.assert_close(apply_op(z, target[0], source[0], 0.5), apply_op(z, source[0], target[0], -0.5))


def blends_restated(draft: Tensor, terminal: Tensor, share: list[float]) -> Tensor:
    out, z = [], draft.clone()
    for w in share:
        target_norm = (z.norm() + terminal.norm()) / 2
        z = z * (1 - w) + terminal * w
        z = z * (target_norm / z.norm())
        out.append(z)
    return torch.stack(out)


def test_annealed_blends_against_a_restatement():
    draft, terminal = random(24), 2 * random(24, seed=1)
    torch.testing.assert_close(
        annealed_blends(draft, terminal, 5), blends_restated(draft, terminal, [0.15, 0.25, 0.35, 0.45, 0.55])
    )
    slow = annealed_blends(draft, terminal, 3, step_size=0.025)
    torch.testing.assert_close(slow, blends_restated(draft, terminal, [0.075, 0.1, 0.125]))
    batch = annealed_blends(torch.stack([draft, terminal]), terminal, 5)
    assert batch.shape == (5, 2, 24)
    assert same_bits(batch[:, 0].contiguous(), annealed_blends(draft, terminal, 5))


def test_annealed_blends_against_minihf():
    default = Path(__file__).resolve().parents[4] / "shared" / "fixtures" / "minihf"
    path = Path(os.environ.get("STEER_MINIHF_FIXTURE", default)) / "expected.safetensors"
    if not path.is_file():
        pytest.skip(f"no MiniHF fixture at {path}; set STEER_MINIHF_FIXTURE to its folder")
    expected = load_file(path)
    # The fixture anneals from the first of its three latents towards the last.
    z, blends = expected["z"], expected["annealed_blends"]
    torch.testing.assert_close(annealed_blends(z[0], z[2], len(blends)), blends, rtol=0, atol=1e-5)


def test_classifier_free_guidance():
    null, cond = random(4, 50), random(4, 50, seed=1)
    assert same_bits(classifier_free_guidance(null, cond, 1.0), cond)
    assert same_bits(classifier_free_guidance(null, cond, 0.0), null)
    torch.testing.assert_close(classifier_free_guidance(null, cond, 1.5), 1.5 * cond - 0.5 * null)
    scales = torch.tensor([0.0, 1.0, 1.5, -0.5])
    guided = classifier_free_guidance(null, cond, scales)
    assert same_bits(guided[0], null[0])
    assert same_bits(guided[1], cond[1])
    assert same_bits(guided, classifier_free_guidance(null, cond, scales[:, None]))
    for i, scale in enumerate(scales.tolist()):
        assert same_bits(classifier_free_guidance(null[i : i + 1], cond[i : i + 1], scale), guided[i : i + 1])


def test_low_precision_drafts_keep_their_dtype():
    draft = random(2, 8).bfloat16()
    mixed = mix(draft, [Pull(random(8, seed=1), weights(0.5))], 0)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mix(draft, [Pull(random(8, seed=1), weights(0))], 0), draft)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Pull(random(2, 2, 2), weights(1)), r"latent is a float \[z\] or \[B, z\]; got \[2, 2, 2\] of float32"),
        (lambda: Pull(torch.ones(3, dtype=torch.int64), weights(1)), r"latent is a float .* of int64"),
        (lambda: Pull("a frog", weights(1)), r"latent is the text 'a frog'; .* model.encode"),  # pyright: ignore
        (lambda: Pull(None, weights(1)), "latent is None of NoneType; expected a tensor"),  # pyright: ignore
        (lambda: Pull([[1.0], [1.0, 2.0]], weights(1)), "latent is .* of list; .*all rows of one length"),
        (lambda: Pull([True, False], weights(1)), "latent is .* of list"),
        (lambda: Pull(0.5, weights(1)), r"latent is a float \[z\]"),
        (lambda: Pull(random(3), "bridge"), "weights is the text 'bridge'"),  # pyright: ignore
        (lambda: Pull(random(3), 1.5), r"\[0, 1\]; got 1.5 to 1.5"),
        (lambda: mix(random(2, 3), [random(3)], 0), "pulls holds tensor.* expected Pull"),  # pyright: ignore
        (lambda: mix(random(2, 3), None, 0), "pulls holds None of NoneType"),  # pyright: ignore
        (lambda: task_vector(["a", "b"]), "latents is the text .* model.encode"),
        (lambda: task_vector(random(2, 3), weights=[1]), "2 numbers of at least 0"),
        (lambda: task_vector(random(2, 3), weights=[0, 0]), "not all 0"),
        (lambda: slerp("a", random(3), 0.5), "first latent is the text"),  # pyright: ignore
        (lambda: Pull(torch.tensor([1.0, float("nan")]), weights(1)), "NaN or infinity"),
        (lambda: Pull(random(3), weights()), r"weights are a float \[n\]"),
        (lambda: Pull(random(3), weights(-0.5, 0.2)), r"\[0, 1\]; got -0.5 to 0.2; .*avoid=True"),
        (lambda: Pull(random(3), weights(float("nan"))), r"lie in \[0, 1\]"),
        (lambda: mix(random(3), [], 0), r"draft is a float \[B, z\]; got \[3\]"),
        (
            lambda: mix(random(2, 3), [Pull(random(4), weights(1))], 0),
            r"\[4\] of float32 does not fit a draft \[2, 3\]",
        ),
        (lambda: mix(random(2, 3), [Pull(random(5, 3), weights(1))], 0), "does not fit a draft"),
        (lambda: mix(random(2, 3), [Pull(random(3), torch.ones(5, 1))], 0), "do not fit a draft"),
        (lambda: mix(random(2, 3), [Pull(random(3), constant(4))], 4), "step 4 is outside a schedule of 4 steps"),
        (lambda: mix(random(2, 3), [Pull(random(3), constant(4))], -1), "step -1 is outside"),
        (lambda: mix(random(2, 3), [], 0, method="cubic"), "unknown method 'cubic'"),  # pyright: ignore
        (lambda: mix(random(2, 3), [], 0, rescale="max"), "unknown rescale 'max'"),  # pyright: ignore
        (lambda: mix(random(2, 3), [], 0, rescale=-1.0), "finite and above 0; got -1.0"),
        (lambda: mix(random(2, 3), [Pull(random(3), weights(0.5))], 0, noise=random(3)), "noise has the draft's shape"),
        (lambda: slerp(random(2, 3), random(2, 4), 0.5), "latents of one width"),
        (lambda: slerp(random(2, 3), random(2, 3), 1.5), r"t in \[0, 1\]; got 1.5"),
        (lambda: slerp(random(2, 3), random(2, 3), torch.zeros(5)), "one per row"),
        (lambda: classifier_free_guidance(random(2, 3), random(1, 3), 1.5), "both arms need one shape"),
        (lambda: classifier_free_guidance(random(2, 3), random(2, 3), torch.ones(5)), "one per row"),
        (lambda: guide(random(2, 3), random(4)), r"one width can be mixed; got widths \[3, 4\]"),
        (lambda: apply_op(random(2, 3), random(0, 3), random(2, 3)), r"examples are latents \[n, 3\]"),
        (lambda: task_vector(random(0, 3)), "n of at least 1"),
        (lambda: annealed_blends(random(3), random(3), 0), "at least one step"),
    ],
)
def test_refusals_say_what_is_wrong(call, message: str):
    with pytest.raises(GuidanceError, match=message):
        call()
