"""The visible context as a model is fed with it: checked, cut on the left, never empty, and within its positions."""

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from steer.errors import ArgumentError, TextError
from steer.models.latent_model import LatentModel
from steer.text import check_ids
from steer.writing.span_texts import without_blank

logger = logging.getLogger(__name__)


def check_model(model: object) -> None:
    """Raise `ArgumentError` where something else came for a model, such as its name."""
    if not isinstance(model, LatentModel):
        raise ArgumentError(
            f"model is {model!r:.80} of {type(model).__name__}; expected a LatentModel: "
            "LatentModel.from_pretrained(...) loads one"
        )


def check_contexts(contexts: Sequence[str | Sequence[int]]) -> None:
    """Raise `TextError` unless a list came. The letters of one text would count as rows."""
    if isinstance(contexts, str | bytes):
        raise TextError("contexts is one text; expected a list of texts: pass [text]")
    if not isinstance(contexts, Sequence):
        raise TextError(f"contexts is {contexts!r:.80} of {type(contexts).__name__}; expected a list of texts")


def visible_ids(model: LatentModel, contexts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    """Token ids of contexts as they are fed: the last `config.max_context` of each, or the token of an empty one.

    The blanks that a text ends in are left to the model, see `steer.writing.span_texts.without_blank`.

    Texts that are cut are told as one warning of logging; who gives ids has counted them.

    Args:
        contexts: text, or token ids, per row.

    Raises:
        TextError: one text came where a list is expected, a text cannot be tokenised, or ids are none of the base's.
    """
    check_contexts(contexts)
    limit, vocabulary = model.latent_config.max_context, model.latent_config.base.vocab_size
    rows, lengths = [], []
    for row, context in enumerate(contexts):
        if isinstance(context, str):
            ids = model.to_ids(without_blank(context)[0])
            lengths.append(len(ids))
        else:
            try:
                ids = check_ids(context, vocabulary, "context")
            except TextError:
                raise TextError(
                    f"context {row} must be text, or token ids from 0 to {vocabulary - 1}; got {context!r:.80}"
                ) from None
        rows.append(ids[-limit:] or [model.layout.begin(model.tokenizer)])
    if cut := [length for length in lengths if length > limit]:
        which = f"{len(cut)} of {len(rows)} contexts are" if len(rows) > 1 else "the context is"
        logger.warning("%s cut: the model sees the last %d tokens of %d", which, limit, max(cut))
    return rows


def position_limit(base: Any) -> int | None:
    """Positions for which a base has a table, learned (GPT-2, OPT) or fixed (GPT-J).

    None where positions are computed, as rotary ones are: those go on behind what the base was trained on.

    Args:
        base: a `transformers` causal LM.
    """
    most = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    if most is None:
        return None
    learned = (
        name
        for name, module in base.named_modules()
        # OPT and its like have two rows more than positions.
        if isinstance(module, nn.Embedding) and most <= module.num_embeddings <= most + 2
    )
    fixed = (name for name, buffer in base.named_buffers() if buffer.ndim == 2 and len(buffer) == most)
    if any(_is_table(name) for name in (*learned, *fixed)):
        return most
    return None


def check_positions(model: LatentModel, context: Sequence[int], spans: int) -> None:
    """Whether a context and the spans planned behind it fit the base's table of positions, if it has one.

    Args:
        context: visible token ids, as they are fed.
        spans: to write behind it.

    Raises:
        TextError: they do not fit.
    """
    limit = model.cached("position limit", lambda: position_limit(model.peft.get_base_model()))
    if limit is None:
        return
    soft, size = model.latent_config.soft_tokens, model.span_tokens
    fixed, each = model.layout.span_positions(soft, size)
    needed = len(context) + fixed + spans * each - 1  # nothing is predicted from the last token
    if needed <= limit:
        return
    fitting, room = (limit + 1 - fixed - len(context)) // each, limit + 1 - fixed - spans * each
    advice = [f"write at most {fitting}"] if fitting > 0 else []
    advice += [f"cut the context to its last {room} tokens"] if room > 0 else []
    raise TextError(
        f"a context of {len(context)} tokens and {spans} spans of {size} tokens need {needed} positions with their "
        f"soft tokens, but the base has a table of {limit}; {' or '.join([*advice, 'take a base that has more'])}"
    )


def _is_table(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last == "wpe" or "position" in last
