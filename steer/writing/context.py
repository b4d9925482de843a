"""The visible context as a model is fed with it: checked, cut on the left, and never empty."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from steer.errors import TextError


def check_contexts(contexts: Sequence[str | Sequence[int]]) -> None:
    """Raise `TextError` if one text came where a list is expected, whose letters would count as rows."""
    if isinstance(contexts, str):
        raise TextError("contexts is one text; expected a list of texts: pass [text]")


def visible_ids(model: Any, contexts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    """Token ids of contexts as they are fed: the last `config.max_context` of each, or the token of an empty one.

    Args:
        model: a `LatentModel`.
        contexts: text, or token ids, per row.

    Raises:
        TextError: one text came where a list is expected, a text cannot be tokenised, or ids are none of the base's.
    """
    check_contexts(contexts)
    limit, vocabulary = model.latent_config.max_context, model.latent_config.base.vocab_size
    rows = []
    for row, context in enumerate(contexts):
        ids = model.to_ids(context) if isinstance(context, str) else list(context)
        if not all(isinstance(i, int | np.integer) and 0 <= i < vocabulary for i in ids):
            raise TextError(f"context {row} must be text, or token ids from 0 to {vocabulary - 1}; got {context!r:.80}")
        rows.append([int(i) for i in ids[-limit:]] or [model.layout.begin(model.tokenizer)])
    return rows
