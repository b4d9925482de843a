"""Linear layers for decoding small batches on a CPU.

A step of decoding multiplies each weight matrix with a few rows. BLAS does `x @ w.T` for 2 to some 30 rows in up to
three times the time of `w @ x.T`, which is the same product; see benchmarks/small_batch.py. (8-bit weights were tried:
1.6 times as fast again for one or two rows, no faster from four on; see docs/LOG.md.)
"""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_ROWS = 32


@final
class SmallBatchLinear(nn.Module):
    """`nn.Linear` that turns the product round for 2 to `MOST_ROWS` rows.

    Args:
        linear: whose weight and bias it shares.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Tensor) -> Tensor:
        """`[..., out]` of `[..., in]`."""
        if not self.in_features < input.numel() <= MOST_ROWS * self.in_features:
            return functional.linear(input, self.weight, self.bias)
        out = (self.weight @ input.reshape(-1, self.in_features).T).T.reshape(*input.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


def for_small_batches(model: Any) -> Any:
    """Put `SmallBatchLinear` in place of a model's linear layers where that is quicker: float32 on a CPU.

    Args:
        model: plain, without adapters; is changed, its weights are not.
    """
    for name, module in list(model.named_modules()):
        # Not its subclasses: those of quantised bases, and of PEFT, have products of their own.
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, SmallBatchLinear(module))
    return model
