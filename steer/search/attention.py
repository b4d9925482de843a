"""Attention over a key-value cache in segments, each read once by all the rows that share it.

The rows of a batch are children of a few leaves. What they share (the root's prompt, the path from the root to the
leaf) is stored once per group of rows, and the rows of a group are folded into the query axis, so that it is read once
for all of them; only a row's own tokens are private. The parts are merged by their log-sum-exp, which is exact.

Sources: the merge is that of FlashAttention (Dao et al., 2022); sharing by tree is described in DeFT (Yao et al., 2024)
and Hydragen (Juravsky et al., 2024). Here it is plain `torch`, through `transformers.AttentionInterface`.
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
    scores = (folded @ key.transpose(-1, -2)).float()
    if count > 1:
        visible = torch.ones(count, own, dtype=torch.bool, device=query.device).tril(own - count)
        scores = scores.unflatten(2, (-1, count)).masked_fill(~visible, -torch.inf).flatten(2, 3)
    parts = [_attend(scores, value)]
    parts += [_shared(folded, segment) for segment in shared]
    if len(parts) == 1:
        out = parts[0][0]
    else:
        weights = torch.softmax(torch.stack([lse for _, lse in parts]), dim=0).to(value.dtype)
        out = parts[0][0] * weights[0]
        for (part, _), weight in zip(parts[1:], weights[1:], strict=True):
            out = torch.addcmul(out, part, weight)
    return out.view(rows, heads, count, width).transpose(1, 2), None


def _shared(folded: Tensor, segment: Segment) -> tuple[Tensor, Tensor]:
    """Attention of rows `[R, kv_heads, m, d]` to the segment of their group, in the rows' layout."""
    rows, kv_heads, queries, width = folded.shape
    groups = segment.keys.shape[0]
    each = rows // groups
    # [G, kv_heads, rows of the group x queries, d]: one product per group reads its keys once.
    grouped = folded.view(groups, each, kv_heads, queries, width).transpose(1, 2).flatten(2, 3)
    scores = (grouped @ segment.keys.transpose(-1, -2)).float()
    if segment.mask is not None:
        scores += segment.mask
    out, lse = _attend(scores, segment.values)

    def back(x: Tensor) -> Tensor:
        return x.unflatten(2, (each, queries)).transpose(1, 2).reshape(rows, kv_heads, queries, x.shape[-1])

    return back(out), back(lse)


def _attend(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax-weighted values and the log-sum-exp `[..., 1]` of float32 scores `[..., L]`; scores are overwritten."""
    top = scores.amax(-1, keepdim=True)
    # A row that sees nothing here (a root's child has no path) must weigh nothing, and not become NaN.
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True)
    # Where anything is seen, the largest weight is 1 and so the total at least that.
    out = (weights.to(values.dtype) @ values) / total.clamp_min(1.0).to(values.dtype)
    return out, total.log() + top


def register() -> str:
    """Make the implementation known to `transformers` by its own extension point; returns its name. Idempotent."""
    AttentionInterface.register(NAME, segment_attention)
    return NAME
