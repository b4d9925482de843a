"""Tokens as a tokenizer spells them, and rows of token ids as padded tensors."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import regex
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from steer.errors import TextError
from steer.sentences import UNSPACED

# A space (SentencePiece), and a space, a newline and a tab (byte-level), as they stand before a word.
WORD_MARKS = ("\u2581", "\u0120", "\u010a", "\u0109")


def text_begin(tokenizer: Any) -> int:
    """The token id that stands before a text for a bare base: the beginning of text, where there is none the end.

    Raises:
        TextError: the tokenizer has neither.
    """
    for begin in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if begin is not None:
            return int(begin)
    raise TextError("the tokenizer has neither a beginning nor an end token; give a context of at least one token")


def spellings(tokenizer: Any, vocab_size: int) -> list[str]:
    """Tokens 0 to `vocab_size - 1` as the tokenizer's file writes them; empty where an id has no token.

    Decoding one token alone would drop the space of a SentencePiece word.
    """
    return [token or "" for token in tokenizer.convert_ids_to_tokens(list(range(vocab_size)))]


def continuation_tokens(tokenizer: Any, vocab_size: int) -> Tensor:
    """`[V]` bool: tokens that go on inside a word, or inside a character.

    Those of scripts without spaces between words do not: each can begin a word.
    """
    tokens = spellings(tokenizer, vocab_size)
    in_bytes = any(token.startswith(WORD_MARKS[1]) for token in tokens)
    return torch.tensor([bool(t) and not t.startswith(WORD_MARKS) and _goes_on(_begin(t, in_bytes)) for t in tokens])


def _goes_on(begin: str | int) -> bool:
    """Whether a first character, or first byte of a character that the token does not end, is inside a word."""
    if isinstance(begin, int):  # a byte inside a character; or the first one of a letter of two bytes (Latin to Arabic)
        return 0x80 <= begin < 0xE0
    return (begin.isalnum() or begin == "'" or unicodedata.category(begin)[0] == "M") and not _UNSPACED.match(begin)


def _begin(token: str, in_bytes: bool) -> str | int:
    """The first character of a token; the first byte, where it holds no whole character."""
    if in_bytes and all(character in _BYTES for character in token):
        data = bytes(_BYTES[character] for character in token)
    elif spelled := _BYTE.fullmatch(token):
        data = bytes([int(spelled[1], 16)])
    else:
        return token[0]
    size = 1 if data[0] < 0xC0 else 2 if data[0] < 0xE0 else 3 if data[0] < 0xF0 else 4
    try:
        return data[:size].decode()
    except UnicodeDecodeError:
        return data[0]


def _byte_spellings() -> dict[str, int]:
    """The byte that each character of a byte-level token stands for: printable ones themselves, others from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_spellings()
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")  # a byte, as SentencePiece spells it
_UNSPACED = regex.compile(f"[{UNSPACED}]")


def colons(tokenizer: Any, vocab_size: int) -> Tensor:
    """`[V]` bool: tokens that begin with a colon, a space before it or not."""
    return torch.tensor([t.lstrip("\u2581\u0120").startswith(":") for t in spellings(tokenizer, vocab_size)])


def control_tokens(tokenizer: Any, vocabulary: int) -> Tensor:
    """`[V]` bool: tokens that are marks and no text (begin, turns of a chat, fields of a file), but for the end token.

    A base of a chat model would now and then close a turn in the middle of a story.
    """
    table = torch.zeros(vocabulary, dtype=torch.bool)
    marks = {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    marks |= set(tokenizer.all_special_ids)
    table[[i for i in marks - {tokenizer.eos_token_id} if 0 <= i < vocabulary]] = True
    return table


def pad_rows(
    rows: Sequence[Sequence[int]],
    *,
    side: Literal["left", "right"] = "right",
    value: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Token rows of any lengths as one matrix.

    Args:
        rows: token ids; at least one row.
        side: on which to pad.
        value: to pad with.
        device: of the result.

    Returns:
        Ids `[B, T]` int64, and their mask `[B, T]` int64, 1 for tokens that count.
    """
    tensors = [torch.as_tensor(list(row), dtype=torch.long) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)
    mask = pad_sequence([torch.ones_like(t) for t in tensors], batch_first=True, padding_side=side)
    return ids.to(device), mask.to(device)
