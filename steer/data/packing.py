"""Blocks of several stories in which no story sees another.

Positions start again at each end token, and transformers (5 and later) tells from positions that start again that no
attention may cross there; for that it must get no mask and keep no cache. The end token between two stories belongs to
the second: it is what the first one predicts last, and what the second begins with, as `bos` and `eos` are one token
here. So nothing has to be left out of the loss.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer.errors import UnsupportedBase


def restarting_positions(ids: Tensor, border: int) -> Tensor:
    """Positions `[B, T]` int64 of token rows, 0 at each `border` token and at the start of the row."""
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    starts = torch.where(ids == border, places, 0).cummax(dim=1).values
    return places - starts


class BorderedCollator:
    """Rows of `BlockDataset` to a batch whose stories do not see each other.

    Args:
        border: the end token.
    """

    def __init__(self, border: int) -> None:
        self.border = border

    def __call__(self, rows: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
        """The arguments of a causal LM, loss included."""
        ids = torch.stack([row["input_ids"] for row in rows])
        labels = torch.stack([row["labels"] for row in rows])
        positions = restarting_positions(ids, self.border)
        return {"input_ids": ids, "labels": labels, "position_ids": positions, "use_cache": False}


@torch.no_grad()
def check_borders(model: PreTrainedModel, border: int) -> None:
    """Look whether a model keeps packed stories apart.

    Raises:
        UnsupportedBase: it does not; families without positions, and some with attention of their own, do not.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    others = [token for token in range(4) if token != border]
    rows = torch.tensor([[others[0], others[1], border, others[2]], [others[1], others[0], border, others[2]]])
    try:
        positions = restarting_positions(rows, border).to(device)
        logits = model(input_ids=rows.to(device), position_ids=positions, use_cache=False).logits
        alone = model(input_ids=rows[:1, 2:].to(device), use_cache=False).logits
    except (TypeError, ValueError) as error:
        raise UnsupportedBase(
            f"a {model.config.model_type} takes no positions ({error}); leave out `base.packing`"
        ) from error
    finally:
        model.train(training)
    if not (torch.equal(logits[0, 2:], logits[1, 2:]) and torch.allclose(logits[0, 2:], alone[0], atol=1e-4)):
        raise UnsupportedBase(
            f"a {model.config.model_type} sees across the borders of packed stories; leave out `base.packing`"
        )
