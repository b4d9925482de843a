"""The span cache: views, rewinding, copying, overflow, and agreement with a pass without a cache."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from steer.writing.cache import SpanCache, SpanCacheLayer


def states(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 2, length, 4, generator=torch.Generator().manual_seed(seed))


def test_update_returns_views_of_everything_filled() -> None:
    layer = SpanCacheLayer(rows=2, capacity=6)
    first, second = states(2, 3), states(2, 1, seed=1)
    keys, values = layer.update(first, -first)
    assert torch.equal(keys, first)
    assert torch.equal(values, -first)
    keys, values = layer.update(second, -second)
    assert torch.equal(keys, torch.cat([first, second], dim=2))
    assert torch.equal(values, -keys)
    assert layer.keys is not None
    assert keys.data_ptr() == layer.keys.data_ptr()
    assert (layer.get_seq_length(), layer.get_max_length(), layer.get_max_cache_shape()) == (4, 6, 6)
    assert layer.get_mask_sizes(2) == (6, 0)


def test_a_call_with_fewer_rows_uses_the_first_ones() -> None:
    layer = SpanCacheLayer(rows=4, capacity=3)
    layer.update(states(4, 2), states(4, 2))
    keys, _ = layer.update(states(2, 1, seed=1), states(2, 1, seed=1))
    assert keys.shape == (2, 2, 3, 4)
    assert torch.equal(keys[:, :, :2], states(4, 2)[:2])


def test_rewinding_forgets_and_what_follows_overwrites() -> None:
    cache = SpanCache(layers=2, rows=1, capacity=5)
    for layer in range(2):
        cache.update(states(1, 2), states(1, 2), layer)
    for layer in range(2):
        cache.update(states(1, 3, seed=1), states(1, 3, seed=1), layer)
    assert cache.length == 5
    cache.rewind(2)
    assert cache.length == 2
    for layer in range(2):
        keys, _ = cache.update(states(1, 1, seed=2), states(1, 1, seed=2), layer)
        assert torch.equal(keys, torch.cat([states(1, 2), states(1, 1, seed=2)], dim=2))


def test_copied_rows_equal_the_first_ones() -> None:
    cache = SpanCache(layers=2, rows=4, capacity=4)
    for layer in range(2):
        cache.update(states(2, 3), 2 * states(2, 3), layer)
    cache.copy_rows(2)
    for layer in range(2):
        keys, values = cache.update(states(4, 1, seed=1), states(4, 1, seed=1), layer)
        assert torch.equal(keys[2:, :, :3], states(2, 3))
        assert torch.equal(values[2:, :, :3], 2 * states(2, 3))


@pytest.mark.parametrize(("rows", "length"), [(2, 2), (3, 1)])
def test_overflow_is_an_error_that_changes_nothing(rows: int, length: int) -> None:
    layer = SpanCacheLayer(rows=2, capacity=4)
    layer.update(states(2, 3), states(2, 3))
    with pytest.raises(ValueError, match=f"2 rows x 4 tokens cannot take {rows} rows up to token {3 + length}"):
        layer.update(states(rows, length), states(rows, length))
    assert layer.get_seq_length() == 3
    keys, _ = layer.update(states(2, 1, seed=1), states(2, 1, seed=1))
    assert torch.equal(keys, torch.cat([states(2, 3), states(2, 1, seed=1)], dim=2))


def test_rows_write_in_place_and_are_spread() -> None:
    cache = SpanCache(layers=2, rows=2, capacity=3)
    first = states(2, 2)
    for layer in range(2):
        keys, values = cache.update(first + layer, -first - layer, layer)
        assert torch.equal(keys, first + layer) and torch.equal(values, -first - layer)
    wide = cache.spread(torch.tensor([1, 0, 1]), 4)
    assert wide.get_seq_length() == 2 and wide.get_max_length() == 4
    more = states(3, 1, seed=1)
    wanted = torch.cat([first[[1, 0, 1]] + 1, more], dim=2)
    for layer in range(2):
        keys, _ = wide.update(more, more, layer)
    assert torch.equal(keys, wanted)
    keys, values = wide.states()
    assert keys.shape == values.shape == (2, 3, 2, 3, 4)
    assert torch.equal(keys[1], wanted) and torch.equal(values[0, :, :, 2:], more)
    assert torch.equal(cache.states()[0][0], first) and cache.get_seq_length() == 2


@pytest.mark.parametrize("padding", [0, 3])
@torch.no_grad()
def test_chunks_through_the_cache_give_the_logits_of_one_pass(tiny_llama: Path, padding: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    model.lm_head.weight.data.mul_(30)
    ids = torch.randint(0, 256, (2, 14), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :padding] = 0
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    whole = model(ids, attention_mask=mask, position_ids=positions, past_key_values=DynamicCache()).logits
    cache, got = SpanCache(layers=2, rows=2, capacity=14), []
    for start, end in ((0, 5), (5, 6), (6, 10), (10, 11), (11, 14)):
        inputs = {"attention_mask": mask[:, :end] if padding else None, "position_ids": positions[:, start:end]}
        got.append(model(ids[:, start:end], past_key_values=cache, use_cache=True, **inputs).logits)
    chunked = torch.cat(got, dim=1)
    torch.testing.assert_close(chunked[mask == 1], whole[mask == 1], atol=1e-4, rtol=0)
