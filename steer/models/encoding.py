"""Texts and token rows become latents: cut into spans, in batches of similar lengths."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from steer.errors import ArgumentError, LatentError, TextError
from steer.latents.mixing import task_vector
from steer.models.tokens import pad_rows
from steer.text import check_ids, check_texts

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel

Ids = Sequence[int] | Tensor | np.ndarray  # one row of token ids


def encode_texts(model: "LatentModel", texts: str | Sequence[str], *, batch_size: int, long: str) -> Tensor:
    """See `LatentModel.encode`."""
    if long not in ("error", "truncate", "mean"):
        raise ArgumentError(f"long={long!r} is unknown; expected 'error', 'truncate' or 'mean'")
    pieces: list[list[int]] = []
    owners: list[int] = []
    for index, text in enumerate(check_texts(texts, "text to encode")):
        for piece in _pieces(model, text, long):
            pieces.append(piece)
            owners.append(index)
    if not pieces:
        return torch.zeros(0, model.latent_config.z_dim)
    z = encode_rows(model, pieces, batch_size=batch_size)
    if len(set(owners)) == len(owners):
        return z
    owner = torch.tensor(owners)
    return torch.stack([task_vector(z[owner == i]) for i in range(owners[-1] + 1)])


@torch.no_grad()
def encode_rows(model: "LatentModel", rows: Sequence[Ids] | Tensor | np.ndarray, *, batch_size: int) -> Tensor:
    """See `LatentModel.encode_ids`. Rows are sorted by length inside, so that little is padded."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(f"batch_size is the number of rows in a forward pass, at least 1; got {batch_size!r}")
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable | Tensor):
        raise TextError(f"expected rows of token ids, such as [[5, 6, 7]]; got {rows!r:.80}")
    vocabulary = model.latent_config.base.vocab_size
    given = [check_ids(row, vocabulary, f"row {i} of the token rows to encode") for i, row in enumerate(rows)]
    if empty := [i for i, row in enumerate(given) if len(row) == 0]:
        raise TextError(f"row {empty[0]} of the token rows to encode is empty; give at least one token")
    order = sorted(range(len(given)), key=lambda i: len(given[i]))
    out = torch.zeros(len(given), model.latent_config.z_dim)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        ids, mask = pad_rows([given[i] for i in chosen], device=model.device)
        z = model.encode_tokens(ids, mask).cpu()
        if not torch.isfinite(z).all():
            raise LatentError(
                "the encoder gave NaN or infinite latents; the weights are damaged or the dtype is too narrow (try "
                "float32)"
            )
        out[chosen] = z
    return out


def _pieces(model: "LatentModel", text: str, long: str) -> Iterator[list[int]]:
    """The token rows that a text is encoded by."""
    ids, span = model.encoded_ids(text), model.span_tokens
    if len(ids) > span and long == "error":
        raise TextError(
            f"a text of {len(ids)} tokens does not fit a span of {span}: {text.strip()[:60]!r}...; shorten it, or pass "
            "long='mean' or 'truncate'"
        )
    yield ids[:span]
    if long == "mean":
        yield from (ids[i : i + span] for i in range(span, len(ids), span))
