"""Attention over shared segments is plain softmax attention over what each row sees."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from steer.search.engines.attention import NAME, Segment, register, segment_attention
from steer.search.engines.prefix_cache import run_lengths

HEADS, WIDTH = 4, 8
MODULE = SimpleNamespace(layer_idx=1)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def segment(groups: int, kv_heads: int, lengths: list[int], seed: int, dtype: torch.dtype) -> Segment:
    """A segment of groups with own lengths; what is masked is filled with large numbers that must not be seen."""
    size = max(lengths)
    keys, values = (normal(groups, kv_heads, size, WIDTH, seed=seed + i, dtype=dtype) for i in (0, 1))
    mask = torch.zeros(groups, 1, 1, size)
    for group, length in enumerate(lengths):
        mask[group, ..., length:] = -torch.inf
        keys[group, :, length:] = values[group, :, length:] = 50.0
    return Segment(keys, values, None if min(lengths) == size else mask)


def oracle(query: Tensor, key: Tensor, value: Tensor, shared: list[Segment], scaling: float) -> Tensor:
    """Row by row, head by head, query by query, in float64."""
    rows, heads, count, width = query.shape
    own = key.shape[2]
    out = torch.zeros(rows, count, heads, width, dtype=torch.float64)
    for row in range(rows):
        for head in range(heads):
            kv = head // (heads // key.shape[1])
            for step in range(count):
                seen = own - count + step + 1
                keys, values = [key[row, kv, :seen]], [value[row, kv, :seen]]
                for s in shared:
                    group = row // (rows // len(s.keys))
                    open_ = slice(None) if s.mask is None else s.mask[group, 0, 0] == 0
                    keys.append(s.keys[group, kv][open_])
                    values.append(s.values[group, kv][open_])
                scores = torch.cat(keys).double() @ query[row, head, step].double() * scaling
                out[row, step, head] = scores.softmax(0) @ torch.cat(values).double()
    return out


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(("count", "own"), [(1, 1), (1, 5), (3, 3), (3, 7)])
@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([], id="own"),
        pytest.param([[6]], id="one-prompt"),
        pytest.param([[6], [4, 4, 4]], id="prompt-and-paths"),
        pytest.param([[3, 6], [0, 4, 9, 4, 4, 2]], id="masked"),
        pytest.param([[5, 0, 3], [0, 8]], id="nothing-to-see"),
        pytest.param([[2, 1, 3, 0, 0, 7]], id="group-of-one"),
    ],
)
def test_agrees_with_plain_attention(
    dtype: torch.dtype, atol: float, kv_heads: int, count: int, own: int, shapes: list[list[int]]
) -> None:
    rows = 6
    query = normal(rows, HEADS, count, WIDTH, seed=0, dtype=dtype)
    key, value = (normal(rows, kv_heads, own, WIDTH, seed=seed, dtype=dtype) for seed in (1, 2))
    shared = [segment(len(s), kv_heads, s, 10 * i + 3, dtype) for i, s in enumerate(shapes)]
    layers = [[], shared]
    out, weights = segment_attention(MODULE, query, key, value, None, shared_segments=layers)
    assert weights is None and out.dtype == dtype and out.shape == (rows, count, HEADS, WIDTH)
    wanted = oracle(query, key, value, shared, WIDTH**-0.5)
    torch.testing.assert_close(out.double(), wanted, atol=atol, rtol=0.0)


def test_a_scaling_is_used_and_inputs_stay_as_they_are() -> None:
    query, key, value = (normal(2, 2, 2, WIDTH, seed=seed) for seed in range(3))
    shared = [segment(1, 2, [4], 7, torch.float32)]
    before = [x.clone() for x in (query, key, value, shared[0].keys, shared[0].values)]
    for layers, given in (([[], shared], shared), (None, [])):
        out, _ = segment_attention(MODULE, query, key, value, None, scaling=0.7, shared_segments=layers)
        torch.testing.assert_close(out.double(), oracle(query, key, value, given, 0.7), atol=2e-6, rtol=0.0)
    for x, y in zip(before, (query, key, value, shared[0].keys, shared[0].values), strict=True):
        assert torch.equal(x, y)


def test_large_scores_do_not_overflow() -> None:
    query, key, value = (30 * normal(4, 2, 1, WIDTH, seed=seed) for seed in range(3))
    shared = [segment(2, 2, [3, 0], 7, torch.float32)]
    shared[0].keys.mul_(30)
    out, _ = segment_attention(MODULE, query, key, value, None, shared_segments=[[], shared])
    torch.testing.assert_close(out.double(), oracle(query, key, value, shared, WIDTH**-0.5), atol=1e-3, rtol=0.0)


def test_registering_twice_is_once() -> None:
    from transformers import AttentionInterface

    assert register() == register() == NAME
    assert AttentionInterface()[NAME] is segment_attention


@pytest.mark.parametrize(
    ("ids", "groups", "size"),
    [
        ([7], [7], 1),
        ([7] * 5, [7], 5),
        ([1, 1, 2, 2], [1, 2], 2),
        ([1] * 4 + [2] * 6, [1, 1, 2, 2, 2], 2),
        ([1, 1, 2, 2, 2], [1, 1, 2, 2, 2], 1),
        ([1, 2, 1, 2], [1, 2, 1, 2], 1),
        ([1, 1, 2, 2, 1, 1], [1, 2, 1], 2),
    ],
)
def test_run_lengths(ids: list[int], groups: list[int], size: int) -> None:
    assert run_lengths(ids) == (groups, size)
    assert [i for i in groups for _ in range(size)] == ids
    assert all(len({*run}) == 1 for run in (ids[at : at + size] for at in range(0, len(ids), size)))
