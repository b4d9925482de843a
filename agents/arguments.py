"""Checks of what is handed to the public functions of `agents`: wrong types are told before anything is done."""

from pathlib import Path
from typing import TypeVar

from agents.errors import ArgumentError

_T = TypeVar("_T")
_SHOWN = 60  # characters of a value in a message


def expect(value: object, kind: type[_T], name: str, *, how: str = "") -> _T:
    """The value, if it is of that class.

    Args:
        value: what came.
        kind: the class that it must be of.
        name: of the argument, for the message.
        how: where one gets such a thing, for the message.

    Raises:
        ArgumentError: it is of another class; says which, and how to get the right one.
    """
    # A bool is an int to Python, and never the number that was meant.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = "whole number" if kind is int else kind.__name__
        raise ArgumentError(f"{name} must be a {wanted}, got {_shown(value)}" + (how and f"; {how}"))
    return value


def expect_path(value: object, name: str) -> Path:
    """A path, from a `Path` or a text.

    Raises:
        ArgumentError: it is something else, or empty.
    """
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ArgumentError(f"{name} must be a path, as a str or a Path; got {_shown(value)}")
    return Path(value)


def _shown(value: object) -> str:
    text = repr(value)
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return "None" if value is None else f"{text} of type {type(value).__name__}"
