"""Arithmetic on the rows of a matrix, the same for a row alone and for the row in a batch, bit for bit.

A library reduction may add in another order for another batch size; here the order depends on a row's length alone.
"""

import torch
from torch import Tensor
from torch.nn import functional

# The norm of a mix is restored up to this gain; what is shorter is the rounding of a cancelled sum, not a direction.
_MAX_GAIN = 1e6
# Below this sine two unit vectors are opposite (or equal) as far as float32 inputs can tell.
_MIN_SINE = 1e-9


def row_sum(x: Tensor, *, keepdim: bool = False) -> Tensor:
    """Sum over the last axis in an order that depends on its length alone: halves are added until one is left."""
    while x.shape[-1] > 1:
        half = (x.shape[-1] + 1) // 2
        x = x[..., :half] + functional.pad(x[..., half:], (0, 2 * half - x.shape[-1]))
    return x if keepdim else x[..., 0]


def row_norm(x: Tensor) -> Tensor:
    """Euclidean norms `[..., 1]`."""
    return row_sum(x * x, keepdim=True).sqrt()


def unit_rows(x: Tensor) -> Tensor:
    """Rows of length one; zero rows stay zero."""
    return x / row_norm(x).clamp(min=torch.finfo(x.dtype).tiny)


def with_norm(x: Tensor, norm: Tensor) -> Tensor:
    """Rows rescaled to norms `[..., 1]`; what is shorter than the rounding of a cancelled sum is not blown up."""
    floor = (norm / _MAX_GAIN).clamp(min=torch.finfo(x.dtype).tiny)
    return x * (norm / torch.maximum(row_norm(x), floor))


def slerp_rows(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """`slerp` on float64, with `t` as `[..., 1]`."""
    a, b = torch.broadcast_tensors(a, b)
    norm_a, norm_b = row_norm(a), row_norm(b)
    unit_a, unit_b = unit_rows(a), unit_rows(b)
    cosine = row_sum(unit_a * unit_b, keepdim=True)
    across = unit_b - cosine * unit_a
    sine = row_norm(across)
    across = torch.where(sine > _MIN_SINE, unit_rows(across), orthogonal(unit_a))
    angle = torch.atan2(sine, cosine) * t
    curved = ((1 - t) * norm_a + t * norm_b) * (torch.cos(angle) * unit_a + torch.sin(angle) * across)
    straight = (1 - t) * a + t * b
    result = torch.where((norm_a > 0) & (norm_b > 0), curved, straight)
    return torch.where(t == 0, a, torch.where(t == 1, b, result))


def orthogonal(unit: Tensor) -> Tensor:
    """A fixed unit vector orthogonal to each row: neighbours swapped in pairs, (x, y) -> (-y, x)."""
    width = unit.shape[-1]
    even = width - width % 2
    pairs = unit[..., :even].unflatten(-1, (even // 2, 2))
    swapped = functional.pad(torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2), (0, width - even))
    first = torch.zeros_like(unit)
    if width > 1:
        # An odd width's last axis has no neighbour; a row that lies on it is orthogonal to the first axis.
        first[..., 0] = 1
    return torch.where(row_norm(swapped) > 0, unit_rows(swapped), first)
