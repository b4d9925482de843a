"""What tokens are, by how a tokenizer spells them."""

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from steer.models.tokens import continuation_tokens

BEGIN = ("狗", "た", "ส", "ក", "🦊", "。", "、", "「", "—", "“", ".", "…", " Tom", " é", "\n", "«")
GO_ON = ("e", "7", "'s", "é", "ж", "ש", "س", "न", "한", "\u0301", "ी", "ing")


def inside(pieces: list[str]) -> list[bool]:
    """Which of these tokens go on inside a word; the last one makes the tokenizer's kind known."""
    tokenizer: Any = SimpleNamespace(convert_ids_to_tokens=lambda ids: [pieces[i] for i in ids])
    return continuation_tokens(tokenizer, len(pieces)).tolist()


def spelled(data: bytes) -> str:
    """As a byte-level tokenizer writes it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return "".join(chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in data)


@pytest.mark.parametrize("byte_level", [True, False])
def test_words_begin_in_any_script(byte_level: bool) -> None:
    def token(text: str) -> str:
        return spelled(text.encode()) if byte_level else text.replace(" ", "\u2581")

    mark = "\u0120" if byte_level else "\u2581"
    assert inside([*map(token, BEGIN), mark]) == [False] * (len(BEGIN) + 1)
    assert inside([*map(token, GO_ON), mark]) == [True] * len(GO_ON) + [False]


def test_bytes_of_characters() -> None:
    assert set(pre_tokenizers.ByteLevel.alphabet()) == set(spelled(bytes(range(256))))
    first, rest, latin = "狗".encode()[:2], "狗".encode()[1:], "é".encode()[:1]
    assert inside([spelled(first), spelled(rest), spelled(latin), "\u0120"]) == [False, True, True, False]
    assert inside(["<0xE7>", "<0x8B>", "<0xC3>", "<0x41>", "<unk>", "\u2581"]) == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
