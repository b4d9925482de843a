"""The text of spans, so that joined they are the text of the whole, behind their context.

Decoding a span alone would lose the space before its first word (SentencePiece) and break a character whose bytes are
tokens of two spans. So what grows is decoded: context, first span, second span and so on, and a span's text is what it
added. A character that is cut by a border belongs to the span that ends it.
"""

import os
from collections.abc import Sequence

from steer.models.latent_model import LatentModel

BEFORE = 8  # tokens of the context that are decoded: enough for a character cut by its end, and for the space behind it
BLANKS = " \t"
_UNFINISHED = "\ufffd"  # what the first bytes of a character are decoded to


def span_texts(
    model: LatentModel,
    context: Sequence[int],
    spans: Sequence[Sequence[int]],
    *,
    blank: str = "",
    finished: bool = True,
) -> tuple[str, ...]:
    """The text that each of a row's spans adds.

    Args:
        model: whose tokenizer it is.
        context: visible token ids before them.
        spans: token ids, in order.
        blank: what `without_blank` took off the context; the first span does not write it again.
        finished: whether nothing comes behind the last span. Where something does, the first bytes of a character are
            left to it.
    """
    ids = list(context[-BEFORE:])
    before, sent, texts = model.to_text(ids), None, []
    last = max((number for number, span in enumerate(spans) if span), default=0)
    for number, span in enumerate(spans):
        ids += span
        text = model.to_text(ids)
        if sent is None:
            sent = len(os.path.commonprefix([before.rstrip(_UNFINISHED), text]))
            sent += next((n for n in range(len(blank), 0, -1) if text[sent:].startswith(blank[-n:])), 0)
        whole = text if finished and number >= last else text.rstrip(_UNFINISHED)
        texts.append(whole[sent:])
        sent = max(sent, len(whole))
    return tuple(texts)


def without_blank(context: str) -> tuple[str, str]:
    """A context, and the blanks that it ends in.

    Tokens of words begin with their space. Behind a blank that is a token of its own, a model has never seen a word
    begin: it goes on with the middle of one. Behind the word before, it writes the blank itself.
    """
    kept = context.rstrip(BLANKS)
    return (kept, context[len(kept) :]) if kept.strip() else (context, "")


def blanks_of(contexts: Sequence[str] | Sequence[Sequence[int]]) -> list[str]:
    """The blanks that contexts end in; ids have none."""
    return [without_blank(context)[1] if isinstance(context, str) else "" for context in contexts]
