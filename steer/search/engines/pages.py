"""Key-value pages: one per node and arm, in one pool."""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from steer.errors import SearchError

EMPTY = -1


@final
class PagePool:
    """Pages of equal width, in tensors that double until a limit; then the least recently used are given up.

    A page that was given up is no loss: whoever needs it computes it again from the node's tokens.

    Args:
        width: tokens per page.
        arms: pages per node.
        limit: bytes that the pool may take.

    Attributes:
        pages: int32 `[N, arms]` by node, `EMPTY` where there is none.
        evictions: nodes whose pages were given up so far.
    """

    def __init__(self, width: int, arms: int, limit: int) -> None:
        self.width, self.arms, self.limit = width, arms, limit
        self.pages = np.full((0, arms), EMPTY, dtype=np.int32)
        self.evictions = 0
        self._used = np.zeros(0, dtype=np.int64)
        self._clock = 0
        self._free: list[int] = []
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def page_bytes(self) -> int:
        """Bytes of one page, keys and values of all layers; 0 before the first."""
        if self._keys is None or self._values is None:
            return 0
        return _page_bytes(self._keys, self._values)

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages that nodes hold."""
        return int((self.pages != EMPTY).sum()) * self.page_bytes

    def check(self, nodes: int) -> None:
        """Whether the pages of so many nodes fit at once, as far as can be told before the first page.

        Raises:
            SearchError: they do not fit under the limit.
        """
        if nodes * self.arms * self.page_bytes > self.limit:
            self._refuse(nodes * self.arms)

    def __contains__(self, node: int) -> bool:
        return node < len(self.pages) and self.pages[node, 0] != EMPTY

    def store(self, nodes: Sequence[int], keys: Tensor, values: Tensor, *, keep: Sequence[int] = ()) -> None:
        """Keep the states of nodes.

        Args:
            nodes: n of them.
            keys, values: `[layers, arms * n, heads, width, head_dim]`, all nodes of arm 0 first.
            keep: nodes whose pages must not be given up for these.

        Raises:
            SearchError: they do not fit under the limit.
        """
        if not nodes:
            return
        self._cover(max(nodes) + 1)
        places = self._take(len(nodes) * self.arms, keys, values, {*keep, *nodes})
        assert self._keys is not None and self._values is not None
        index = torch.as_tensor(places, device=keys.device)
        self._keys[:, index], self._values[:, index] = keys, values
        self.pages[list(nodes)] = np.asarray(places, dtype=np.int32).reshape(self.arms, len(nodes)).T
        self.touch(nodes)

    def gather(self, nodes: Sequence[Sequence[int]], arm: int) -> tuple[Tensor, Tensor]:
        """States of paths of equal length: keys and values `[layers, P, heads, length * width, head_dim]`."""
        assert self._keys is not None and self._values is not None
        flat = self.pages[[n for path in nodes for n in path], arm]
        index = torch.as_tensor(flat, dtype=torch.long, device=self._keys.device)
        shape = (len(nodes), len(nodes[0]))

        def rows(pool: Tensor) -> Tensor:
            return pool[:, index].unflatten(1, shape).transpose(2, 3).flatten(3, 4)

        return rows(self._keys), rows(self._values)

    def touch(self, nodes: Sequence[int]) -> None:
        """Note that nodes were used now."""
        self._clock += 1
        self._used[list(nodes)] = self._clock

    def release(self, nodes: Sequence[int]) -> None:
        """Give up the pages of nodes, where they have any."""
        for node in nodes:
            if node in self:
                self._free += self.pages[node].tolist()
                self.pages[node] = EMPTY

    def fits(self, keys: Tensor, values: Tensor) -> int:
        """How many nodes with pages like `keys[:, 0]` fit under the limit."""
        return self.limit // (self.arms * _page_bytes(keys, values))

    def _refuse(self, count: int) -> None:
        raise SearchError(
            f"{count} key-value pages do not fit into {self.limit / 2**20:g} MiB; allow more memory, or expand fewer "
            "nodes at once"
        )

    def _cover(self, nodes: int) -> None:
        if nodes > len(self.pages):
            more = max(nodes, 2 * len(self.pages)) - len(self.pages)
            self.pages = np.concatenate([self.pages, np.full((more, self.arms), EMPTY, dtype=np.int32)])
            self._used = np.concatenate([self._used, np.zeros(more, dtype=np.int64)])

    def _take(self, count: int, keys: Tensor, values: Tensor, keep: set[int]) -> list[int]:
        """Free places for `count` pages: grow while the limit allows it, then evict."""
        if len(self._free) < count:
            have = 0 if self._keys is None else self._keys.shape[1]
            room = max(0, self.limit // _page_bytes(keys, values) - have)
            more = min(room, max(count - len(self._free), have, 64))
            if more:
                self._keys = _grown(self._keys, keys, more)
                self._values = _grown(self._values, values, more)
                self._free += range(have + more - 1, have - 1, -1)
        if len(self._free) < count:
            held = [int(n) for n in np.flatnonzero(self.pages[:, 0] != EMPTY) if int(n) not in keep]
            held.sort(key=lambda n: self._used[n])
            needed = -(-(count - len(self._free)) // self.arms)
            self.evictions += min(needed, len(held))
            self.release(held[:needed])
        if len(self._free) < count:
            self._refuse(count)
        return [self._free.pop() for _ in range(count)]


def _page_bytes(keys: Tensor, values: Tensor) -> int:
    return sum(x[:, 0].numel() * x.element_size() for x in (keys, values))


def _grown(pool: Tensor | None, like: Tensor, more: int) -> Tensor:
    """The pool with room for `more` pages of the shape of `like[:, 0]`."""
    fresh = like.new_empty((like.shape[0], more, *like.shape[2:]))
    return fresh if pool is None else torch.cat([pool, fresh], dim=1)
