"""The bare, unsteered base as a reader: logits of token rows of many lengths, in batches that fit memory."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel

MAX_LOGITS = 2**26  # numbers in the logits of one pass: 256 MiB in float32


@torch.no_grad()
def bare_logits(
    model: "LatentModel", rows: Sequence[Sequence[int]], *, max_logits: int = MAX_LOGITS
) -> Iterator[tuple[list[int], Tensor]]:
    """Read rows with the bare base, in batches of similar lengths.

    Rows are padded on the right: a causal model's kept places never see the padding, so that a row reads the same in
    any batch.

    Args:
        model: whose base reads.
        rows: token ids, at least one each.
        max_logits: rows x longest row x vocabulary of one pass; a single row is read however long it is.

    Yields:
        Indices `[b]` of the batch's rows and their logits `[b, T, V]` in the base's dtype; row i's place t predicts its
        token t + 1, places behind its end mean nothing.
    """
    vocab = model.latent_config.base.vocab_size
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    while order:
        width = len(rows[order[0]])
        size = max(1, max_logits // (width * vocab))
        chosen, order = order[:size], order[size:]
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for r, i in enumerate(chosen):
            ids[r, : len(rows[i])] = torch.as_tensor(rows[i])
            mask[r, : len(rows[i])] = 1
        yield chosen, model.role_logits(None, model.embed(ids.to(model.device)), mask.to(model.device))
