"""Attention over a key-value cache in segments, each read once by all the rows that share it.

The rows of a batch are children of a few leaves. What they share (the root's prompt, the path from the root to the
leaf) is stored once per group of rows, and the rows of a group are folded into the query axis, so that it is read once
for all of them; only a row's own tokens are private. One softmax runs over the scores on all parts: while a search
decodes, queries are single tokens and the scores are small.

Sources: sharing by tree is described in DeFT (Yao et al., 2024) and Hydragen (Juravsky et al., 2024). Here it is plain
`torch`, through `transformers.AttentionInterface`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

NAME = "steer_segments"


@dataclass(frozen=True, slots=True)
class Segment:
    """Keys and values that groups of consecutive rows share, in one layer.

    Attributes:
        keys, values: `[G, heads, L, head_dim]`; G divides the rows of the batch, and group g holds the g-th share.
        mask: `[G, 1, 1, L]` float32, 0 or minus infinity, where prefixes of several lengths are padded; else None.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None


def segment_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_segments: list[list[Segment]] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention over shared segments and the rows' own tokens; registered with `transformers` as `NAME`.

    Args:
        module: the attention layer; its `layer_idx` picks the segments.
        query: `[R, heads, q, head_dim]`, the last q tokens of each row.
        key, value: `[R, kv_heads, t, head_dim]`, each row's own tokens so far.
        attention_mask: not used, `transformers` makes none for an implementation without a mask function.
        scaling: of the scores; by default `head_dim ** -0.5`.
        dropout: not used, this is inference.
        shared_segments: per layer, what stands before the rows' own tokens, all of it visible to all their queries.
        kwargs: ignored.

    Returns:
        `[R, q, heads, head_dim]`, and None for the weights.
    """
    rows, heads, count, width = query.shape
    kv_heads, own = key.shape[1], key.shape[2]
    scale = width**-0.5 if scaling is None else scaling
    shared = shared_segments[module.layer_idx] if shared_segments else []
    if not shared and own == count:
        # A prompt: the library's kernel needs no matrix of scores.
        out = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=heads != kv_heads
        )
        return out.transpose(1, 2), None
    # Heads of one key head are neighbours, as in `repeat_kv`; they are folded into the query axis.
    folded = (query * scale).reshape(rows, kv_heads, heads // kv_heads * count, width)
    scores = folded @ key.transpose(-1, -2)
    if count > 1:
        visible = torch.ones(count, own, dtype=torch.bool, device=query.device).tril(own - count)
        scores = scores.unflatten(2, (-1, count)).masked_fill(~visible, -torch.inf).flatten(2, 3)
    scores = torch.cat([scores, *(_scores(folded, segment) for segment in shared)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    out, at = weights[..., :own] @ value, own
    for segment in shared:
        end = at + segment.values.shape[2]
        out += _ungroup(_group(weights[..., at:end], segment) @ segment.values, rows)
        at = end
    return out.view(rows, heads, count, width).transpose(1, 2), None


def _scores(folded: Tensor, segment: Segment) -> Tensor:
    """Scores `[R, kv_heads, m, L]` of rows `[R, kv_heads, m, d]` on the segment of their group."""
    scores = _group(folded, segment) @ segment.keys.transpose(-1, -2)
    if segment.mask is not None:
        scores += segment.mask
    return _ungroup(scores, folded.shape[0])


def _group(x: Tensor, segment: Segment) -> Tensor:
    """`[R, kv_heads, m, d]` as `[G, kv_heads, R/G * m, d]`: one product per group reads its segment once."""
    groups = segment.keys.shape[0]
    if groups == x.shape[0]:
        return x
    return x.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2, 3)


def _ungroup(x: Tensor, rows: int) -> Tensor:
    """`[G, kv_heads, R/G * m, d]` as `[R, kv_heads, m, d]`."""
    groups = x.shape[0]
    if groups == rows:
        return x
    return x.unflatten(2, (rows // groups, -1)).transpose(1, 2).flatten(0, 1)


def register() -> str:
    """Make the implementation known to `transformers` by its own extension point; returns its name. Idempotent."""
    AttentionInterface.register(NAME, segment_attention)
    return NAME
