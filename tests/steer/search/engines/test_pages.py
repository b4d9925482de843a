"""The pool of key-value pages."""

import pytest
import torch
from torch import Tensor

from steer.errors import SearchError
from steer.search.engines.pages import EMPTY, PagePool

LAYERS, HEADS, PAGE, DIM = 2, 3, 4, 5
BYTES = 2 * LAYERS * HEADS * PAGE * DIM * 4  # of a page, keys and values, float32


def page(node: int, arm: int = 0) -> Tensor:
    """Keys of a node's page, `[layers, heads, width, d]`, unlike those of all others."""
    return torch.full((LAYERS, HEADS, PAGE, DIM), 10.0 * node + arm) + torch.arange(PAGE)[:, None] / 8


def store(pool: PagePool, nodes: list[int], keep: tuple[int, ...] = ()) -> None:
    keys = torch.stack([page(node, arm) for arm in range(pool.arms) for node in nodes], dim=1)
    pool.store(nodes, keys, -keys, keep=keep)


def held(pool: PagePool) -> set[int]:
    return {n for n in range(len(pool.pages)) if n in pool}


def check(pool: PagePool) -> None:
    """Every page that is held is what was stored, and no page has two owners."""
    nodes = sorted(held(pool))
    used = pool.pages[pool.pages != EMPTY].tolist()
    assert len(set(used)) == len(used) == len(nodes) * pool.arms
    assert pool.used_bytes == len(used) * BYTES
    for arm in range(pool.arms):
        for node in nodes:
            keys, values = pool.gather([[node]], arm)
            assert torch.equal(keys[:, 0], page(node, arm)) and torch.equal(values[:, 0], -page(node, arm))


@pytest.mark.parametrize("arms", [1, 2])
def test_pages_come_back_as_they_were_however_the_pool_grows(arms: int) -> None:
    pool = PagePool(PAGE, arms, 2**30)
    assert (pool.page_bytes, pool.used_bytes) == (0, 0)
    for first in range(0, 300, 30):
        store(pool, list(range(first, first + 30)))
        assert pool.page_bytes == BYTES
    assert held(pool) == set(range(300)) and pool.evictions == 0
    check(pool)


def test_paths_are_gathered_token_by_token() -> None:
    pool = PagePool(PAGE, 2, 2**30)
    store(pool, [3, 1, 2])
    keys, values = pool.gather([[1, 2, 3], [3, 3, 1]], 1)
    assert keys.shape == (LAYERS, 2, HEADS, 3 * PAGE, DIM)
    wanted = torch.stack([torch.cat([page(n, 1) for n in path], dim=2) for path in ([1, 2, 3], [3, 3, 1])], dim=1)
    assert torch.equal(keys, wanted) and torch.equal(values, -wanted)


@pytest.mark.parametrize("arms", [1, 2])
def test_the_least_recently_used_are_given_up_at_the_limit(arms: int) -> None:
    pool = PagePool(PAGE, arms, 4 * arms * BYTES + BYTES // 2)
    store(pool, [0, 1])
    store(pool, [2])
    store(pool, [3])
    pool.touch([0])
    store(pool, [4])
    assert held(pool) == {0, 2, 3, 4} and pool.evictions == 1
    store(pool, [5, 6], keep=(2,))
    assert held(pool) == {2, 4, 5, 6} or held(pool) == {0, 2, 5, 6}
    assert 0 not in held(pool) or 4 not in held(pool)
    assert pool.evictions == 3 and pool.used_bytes <= pool.limit
    check(pool)


def test_what_is_released_makes_room() -> None:
    pool = PagePool(PAGE, 1, 3 * BYTES)
    store(pool, [0, 1, 2])
    pool.release([1, 1, 7, 2])
    assert held(pool) == {0}
    store(pool, [8, 9])
    assert held(pool) == {0, 8, 9} and pool.evictions == 0
    check(pool)


def test_what_does_not_fit_is_refused() -> None:
    pool = PagePool(PAGE, 2, 4 * BYTES)
    keys = page(0)[:, None]
    assert pool.fits(keys, keys) == 2
    pool.check(100)  # nobody knows how large a page is
    with pytest.raises(SearchError, match="6 key-value pages do not fit into .* MiB; allow more memory"):
        store(pool, [0, 1, 2])
    store(pool, [0, 1])
    with pytest.raises(SearchError, match="2 key-value pages do not fit"):
        store(pool, [2], keep=(0, 1))
    with pytest.raises(SearchError, match="6 key-value pages do not fit"):
        pool.check(3)
    pool.check(2)
    assert held(pool) == {0, 1}
    check(pool)
    pool.store([], keys[:, :0], keys[:, :0])
    assert held(pool) == {0, 1}
