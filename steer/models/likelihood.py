"""The bare, unsteered base as a reader: how likely it finds token rows, in batches that fit memory."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steer.models.tokens import pad_rows, text_begin

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
        size = max(1, max_logits // (len(rows[order[0]]) * vocab))
        chosen, order = order[:size], order[size:]
        ids, mask = pad_rows([rows[i] for i in chosen], device=model.device)
        yield chosen, model.role_logits(None, model.embed(ids), mask)


def mean_logprobs(model: "LatentModel", prefixes: Sequence[Sequence[int]], spans: Sequence[Sequence[int]]) -> Tensor:
    """Mean log-probability per token of spans behind prefixes under the bare base, from one full pass per row.

    A search engine that keeps the base's cache knows these numbers more cheaply; this is for those that do not.

    Args:
        model: whose base reads.
        prefixes: token ids before each span. An empty one counts as the beginning of a text.
        spans: token ids. An empty one has no likelihood: NaN.

    Returns:
        `[n]` float32 on the CPU, nats.
    """
    starts = [list(prefix) or [text_begin(model.tokenizer)] for prefix in prefixes]
    rows = [[*start, *span] for start, span in zip(starts, spans, strict=True)]
    means = torch.full((len(rows),), torch.nan)
    for chosen, logits in bare_logits(model, rows):
        for r, i in enumerate(chosen):
            first, length = len(starts[i]), len(rows[i])
            logp = logits[r, first - 1 : length - 1].float().log_softmax(dim=-1)
            own = torch.as_tensor(rows[i][first:], device=logp.device)
            means[i] = logp.gather(1, own[:, None]).mean().cpu()
    return means
