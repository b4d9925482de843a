"""Checks on text from outside."""

from pathlib import Path

import pytest

from steer.errors import TextError
from steer.text import MAX_CHARACTERS, check_text, read_text


@pytest.mark.parametrize("text", ["a", " naïve – “quotes” ", "😀\U0001f409", "line\n\ttab", "\ufeffmark"])
def test_good_text_comes_back_as_it_is(text: str) -> None:
    assert check_text(text, "goal") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "goal: expected text, got NoneType"),
        (b"bytes", "expected text, got bytes"),
        (3, "expected text, got int"),
        ("", "goal is empty; give at least one word"),
        (" \n\t\u2003", "goal is empty"),
        ("a\0b", "contains NUL characters"),
        ("ab\udc80", r"not valid Unicode \(character 2 is a lone surrogate\)"),
        ("\ud83d", "lone surrogate"),
        ("a" * (MAX_CHARACTERS + 1), "4,000,001 characters; the limit is 4,000,000"),
    ],
)
def test_bad_text_is_named_with_what_is_wrong(text: object, message: str) -> None:
    with pytest.raises(TextError, match=message):
        check_text(text, "goal")


def test_empty_text_may_be_allowed_but_nothing_else_is() -> None:
    assert check_text("", "context", allow_empty=True) == ""
    assert check_text("  ", "context", allow_empty=True) == "  "
    with pytest.raises(ValueError, match="NUL"):
        check_text("\0", "context", allow_empty=True)


def test_read_text_takes_utf8_with_or_without_a_mark_and_may_be_empty(tmp_path: Path) -> None:
    for name, data in (("plain", "naïve\n".encode()), ("marked", "naïve\n".encode("utf-8-sig"))):
        (tmp_path / name).write_bytes(data)
        assert read_text(tmp_path / name) == "naïve\n"
    (tmp_path / "empty").write_bytes(b"")
    assert read_text(tmp_path / "empty") == ""


def test_read_text_says_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "binary").write_bytes(b"\x00\x01")
    with pytest.raises(TextError, match=r"opening .*latin is not UTF-8 \(byte 2\)"):
        read_text(tmp_path / "latin", "opening")
    with pytest.raises(TextError, match="NUL"):
        read_text(tmp_path / "binary")
    with pytest.raises(TextError, match="cannot read text file .*: No such file"):
        read_text(tmp_path / "missing")
    with pytest.raises(TextError, match="cannot read"):
        read_text(tmp_path)
