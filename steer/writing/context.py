"""The visible context as a model is fed with it: checked, cut on the left, and never empty."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from steer.errors import TextError


def text_begin(tokenizer: Any) -> int:
    """The token id that stands before a text for a bare base: the beginning of text, where there is none the end.

    Raises:
        TextError: the tokenizer has neither.
    """
    for begin in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if begin is not None:
            return int(begin)
    raise TextError("the tokenizer has neither a beginning nor an end token; give a context of at least one token")


def context_begin(model: Any) -> int:
    """The token id that stands for an empty context.

    In the `interleaved` layout that is the end token, which parts stories in training; in BigVAE's see `text_begin`.

    Args:
        model: a `LatentModel`.

    Raises:
        TextError: the tokenizer has no such token.
    """
    end = model.tokenizer.eos_token_id
    interleaved = model.latent_config.layout == "interleaved"
    return int(end) if interleaved and end is not None else text_begin(model.tokenizer)


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
        rows.append([int(i) for i in ids[-limit:]] or [context_begin(model)])
    return rows
