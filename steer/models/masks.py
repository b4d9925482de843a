"""Four-dimensional attention masks, additive, so that they are right under both `sdpa` and `eager` attention."""

import torch
from torch import Tensor


def additive_mask(mask: Tensor, *, causal: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """`[B, 1, T, T]` additive mask from a padding mask: 0 where a query may look, the lowest finite number where not.

    `transformers` hands such a mask on as it is; a boolean one would be *added* under eager attention.

    Args:
        mask: `[B, T]`, 1 for tokens that count.
        causal: whether later places are hidden too.
        dtype: of the attention.
    """
    length = mask.shape[1]
    allowed = mask[:, None, None, :].bool().expand(-1, 1, length, -1)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    # A query that would see nothing sees itself, so that softmax stays finite.
    alone = ~allowed.any(-1, keepdim=True)
    allowed = allowed | (alone & torch.eye(length, dtype=torch.bool, device=mask.device))
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, torch.finfo(dtype).min)
