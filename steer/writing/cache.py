"""A preallocated key-value cache for writing spans.

Nothing is concatenated per token, and a draft is undone by moving one number.

`transformers.DynamicCache` copies the whole cache for every token; `StaticCache` attends over its full length. This one
writes in place and hands out views of what is filled. A call with fewer rows than the cache holds uses its first rows,
so that drafts (conditional rows only) and guided writing (conditional and null rows) share one cache.
"""

from typing import Any, final

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@final
class SpanCacheLayer(CacheLayerMixin):
    """One layer: buffers `[rows, heads, capacity, head_dim]`, allocated at the first call, filled up to `length`."""

    is_sliding = False
    is_croppable = True

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows = rows
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate buffers with the heads, width, dtype and device of the first states."""
        self.keys = key_states.new_empty((self.rows, key_states.shape[1], self.capacity, key_states.shape[3]))
        self.values = value_states.new_empty((self.rows, value_states.shape[1], self.capacity, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new states `[n <= rows, heads, t, head_dim]` behind the filled part.

        Returns views of all filled states of those rows.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, end = key_states.shape[0], self.length + key_states.shape[2]
        if rows > self.rows or end > self.capacity:
            raise ValueError(
                f"cache of {self.rows} rows x {self.capacity} tokens cannot take {rows} rows up to token {end}; make "
                "it larger"
            )
        assert self.keys is not None and self.values is not None
        self.keys[:rows, :, self.length : end] = key_states
        self.values[:rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a query of this length sees."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Filled tokens."""
        return self.length

    def get_max_length(self) -> int:
        """Capacity in tokens."""
        return self.capacity

    get_max_cache_shape = get_max_length  # the name before transformers 5.20

    def filled(self) -> tuple[Tensor, Tensor]:
        """Views of the filled keys and values of all rows, `[rows, heads, length, head_dim]` each."""
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


@final
class SpanCache(Cache):
    """A `transformers` cache of `SpanCacheLayer`s.

    Args:
        layers: hidden layers of the base model.
        rows: batch rows.
        capacity: tokens per row.
    """

    def __init__(self, layers: int, rows: int, capacity: int) -> None:
        self.rows = rows
        self.spans = [SpanCacheLayer(rows, capacity) for _ in range(layers)]
        super().__init__(layers=[*self.spans])

    @property
    def length(self) -> int:
        """Filled tokens."""
        return self.get_seq_length()

    def rewind(self, length: int) -> None:
        """Forget everything behind `length` tokens; costs nothing."""
        for layer in self.spans:
            layer.length = length

    def copy_rows(self, count: int) -> None:
        """Copy rows `[0, count)` to rows `[count, 2 * count)`: a prefix that two arms share is computed once."""
        for layer in self.spans:
            for buffer in layer.filled():
                buffer[count : 2 * count] = buffer[:count]

    def spread(self, index: Tensor, capacity: int) -> "SpanCache":
        """A cache whose row i starts as row `index[i]` of this one, with room for `capacity` tokens."""
        wide = SpanCache(len(self.spans), len(index), capacity)
        for source, target in zip(self.spans, wide.spans, strict=True):
            keys, values = source.filled()
            target.update(keys[index], values[index])
        return wide

    def states(self) -> tuple[Tensor, Tensor]:
        """Copies of the filled keys and values of all layers, `[layers, rows, heads, length, head_dim]` each."""
        keys, values = zip(*(layer.filled() for layer in self.spans), strict=True)
        return torch.stack(keys), torch.stack(values)
