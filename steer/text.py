"""Checks on text, token ids and numbers that come from outside."""

import numbers
import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from steer.errors import TextError

MAX_CHARACTERS = 4_000_000


def check_text(text: object, what: str, *, allow_empty: bool = False) -> str:
    """Return `text` if it can be tokenised.

    Args:
        text: what came.
        what: how to call it in the message.
        allow_empty: whether nothing (or white space alone) is fine.

    Raises:
        TextError: not a string, empty, with lone surrogates or NUL, or over 4 million characters.
    """
    if not isinstance(text, str):
        raise TextError(f"{what}: expected text, got {type(text).__name__}")
    if not allow_empty and not text.strip():
        raise TextError(f"{what} is empty; give at least one word")
    if len(text) > MAX_CHARACTERS:
        raise TextError(f"{what} has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}: cut it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"{what} is not valid Unicode (character {error.start} is a lone surrogate); was it read with the wrong "
            "encoding?"
        ) from error
    if "\0" in text:
        raise TextError(f"{what} contains NUL characters; is it a binary file?")
    return text


def check_texts(texts: object, what: str) -> list[str]:
    """One text, or several, as a list; each can be tokenised and holds a word.

    Raises:
        TextError: neither a text nor texts came, or see `check_text`.
    """
    if isinstance(texts, str):
        return [check_text(texts, what)]
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise TextError(f"{what}: expected a text or a list of texts, got {type(texts).__name__}")
    return [check_text(text, what) for text in texts]


def check_ids(ids: Any, vocabulary: int, what: str) -> list[int]:
    """Token ids as a list of ints.

    Args:
        ids: a list, an array or a tensor of one row of ids.
        vocabulary: V, which ids are below.
        what: how to call them in the message.

    Raises:
        TextError: something else came, or an id that is none of the vocabulary's.
    """
    try:
        found = [operator.index(i) for i in (ids.tolist() if hasattr(ids, "tolist") else ids)]
        outside = next((i for i in found if not 0 <= i < vocabulary), None)
    except TypeError:
        raise TextError(f"{what}: expected a list of token ids, got {ids!r:.80} of {type(ids).__name__}") from None
    if outside is not None:
        raise TextError(f"{what}: there is no token id {outside}; expected 0 to {vocabulary - 1}")
    return found


def is_number(value: object) -> bool:
    """Whether something is a number (as the truth values are not) that can be compared with others: not NaN."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value


def read_text(path: str | Path, what: str = "text file") -> str:
    """Read a UTF-8 file.

    Raises:
        TextError: it is missing, unreadable, or not UTF-8.
    """
    try:
        return check_text(Path(path).read_bytes().decode("utf-8-sig"), f"{what} {path}", allow_empty=True)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{what} {path} is not UTF-8 (byte {error.start}); convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise TextError(f"cannot read {what} {path}: {error.strerror}") from error
