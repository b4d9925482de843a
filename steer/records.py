"""Records of files that people write, and pydantic's errors about them as lines that name the place."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pydantic
import yaml
from pydantic_core import InitErrorDetails, PydanticCustomError

MAX_ERRORS = 8
MAX_SHOWN = 80


@dataclass(frozen=True)
class KeysOf:
    """Metadata of a mapping whose keys are those of a record, though it is checked later: they are suggested too."""

    record: type[pydantic.BaseModel]


class StrictRecord(pydantic.BaseModel):
    """A frozen part of a file that refuses unknown keys, and truth values where numbers are expected."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        if _holds_truth_value(value) and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("expected a number; got a truth value, as which YAML reads yes, no, on and off")
        return value


def describe_errors(
    error: pydantic.ValidationError,
    record: type[pydantic.BaseModel],
    where: str | Path,
    root: yaml.Node | None = None,
) -> str:
    """Pydantic's errors as lines `where:line: key: what is wrong`, the first eight.

    Args:
        error: what pydantic raised. An error that belongs deeper than where it was raised says so in its context, as
            `place`.
        record: that was validated.
        where: the data are from.
        root: of the file's nodes; without them no lines are named.
    """
    items = error.errors(include_url=False)
    lines = [_describe(item, record, where, root) for item in items[:MAX_ERRORS]]
    return "\n".join([*lines, *([f"... and {len(items) - MAX_ERRORS} more"] if len(items) > MAX_ERRORS else [])])


def suggest(word: object, known: Collection[str], taken: Collection[str] = ()) -> str:
    """What an unknown word may be meant for: `did you mean 'x'?`, or all that is known.

    Args:
        word: that is unknown.
        known: words.
        taken: those that stand there already, so that they cannot be meant.
    """
    free = [name for name in known if name not in taken]
    if near := difflib.get_close_matches(str(word)[:MAX_SHOWN], free, n=1):
        return f"did you mean {near[0]!r}?"
    return f"expected {'one of ' if len(known) > 1 else ''}{', '.join(known) or 'none'}"


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Dotted names of the leaves that are not alike in nested JSON, by name, and in words what there was and is."""
    then, here = dict(_leaves_of(was)), dict(_leaves_of(now))
    keys = sorted(key for key in then.keys() | here.keys() if then.get(key) != here.get(key))

    def shown(leaves: Mapping[str, Any], key: str) -> str:
        return repr(leaves[key])[:60] if key in leaves else "not there"

    return [(key, f"{key} was {shown(then, key)}, now it is {shown(here, key)}") for key in keys]


def _leaves_of(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves_of(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves_of(item, f"{prefix}.{index}")
    else:
        yield prefix, value


def first_error(error: pydantic.ValidationError) -> str:
    """The first of pydantic's errors on one line, for files that no person wrote: its place, and what is wrong."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"


def unknown_keys(given: Mapping[str, Any], known: Collection[str], what: str) -> pydantic.ValidationError | None:
    """An error for pydantic about keys that a part with changing keys does not have; None if it has all of them."""
    details: list[InitErrorDetails] = []
    for key in [key for key in given if key not in known][: MAX_ERRORS + 1]:
        message = f"unknown {what}; {suggest(key, known, given)}"
        kind = PydanticCustomError("unknown_key", "{message}", {"message": message})
        details.append(InitErrorDetails(type=kind, loc=(key,), input=given[key]))
    return pydantic.ValidationError.from_exception_data(what, details) if details else None


def _describe(item: Any, record: type[pydantic.BaseModel], where: str | Path, root: yaml.Node | None) -> str:
    loc = tuple(item["loc"])
    if place := item.get("ctx", {}).get("place"):
        loc += tuple(int(part) if part.isdigit() else part for part in place.split("."))
    loc, parents = _locate(record, loc)
    line, siblings = (0, []) if root is None else _find(root, loc)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = [name for parent in parents for name in parent.model_fields]
        message = f"unknown key; {suggest(loc[-1], known, siblings)}" if known else "unknown key"
    elif item["type"] == "missing":
        message = "this key is missing"
    elif isinstance(item["input"], str | int | float | None):
        quotes = isinstance(item["input"], bool) and item["type"] == "string_type"
        message += f" (got {_shown(item['input'])}{'; put it in quotes' if quotes else ''})"
    place = ".".join(shown_key(part) for part in loc)
    return ": ".join([f"{where}:{line}" if line else str(where), *([place] if place else []), message])


def _shown(value: str | int | float | None) -> str:
    if isinstance(value, int) and abs(value) >= 10**MAX_SHOWN:
        return "a number of over 80 digits"  # Python refuses to write one of over 4,300
    return repr(value) if len(repr(value)) <= MAX_SHOWN else repr(value)[:MAX_SHOWN] + "..."


def shown_key(key: object) -> str:
    """A key for a message: without control characters, and not endless."""
    text = str(key) if str(key).isprintable() else repr(key)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _find(root: yaml.Node, loc: Sequence[Any]) -> tuple[int, list[str]]:
    """Line (from 1) of the deepest part of `loc` that the file has, and the keys beside it."""
    node, line, siblings = root, root.start_mark.line + 1, []
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            siblings = [key.value for key, _ in node.value]
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line, siblings


def _locate(record: type[pydantic.BaseModel], loc: Sequence[Any]) -> tuple[tuple[Any, ...], list[type[Any]]]:
    """The place in the file that pydantic's `loc` means, and the records to which its last part should belong."""
    place: list[Any] = []
    kinds: list[Any] = [record]
    parents: list[type[Any]] = []
    for part in loc:
        options = [option for kind in kinds for option in _options(kind)]
        if tagged := [kind for tags, kind in options if part in tags]:
            kinds = tagged
            continue
        place.append(part)
        parents = [kind for _, kind in options if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)]
        fields = [parent.model_fields[part] for parent in parents if part in parent.model_fields]
        kinds = [field.annotation for field in fields]
        kinds += [item.record for field in fields for item in field.metadata if isinstance(item, KeysOf)]
        for _, kind in options:
            if get_origin(kind) in (tuple, list, dict, Mapping):
                kinds += [item for item in get_args(kind)[-2 if get_origin(kind) is tuple else -1 :] if item is not ...]
    return tuple(place), parents


def _options(annotation: Any, tags: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What an annotation allows, with the tags that a discriminated union gives it."""
    if hasattr(annotation, "__metadata__"):
        own = tuple(item.tag for item in annotation.__metadata__ if isinstance(item, pydantic.Tag))
        yield from _options(get_args(annotation)[0], tags + own)
    elif isinstance(annotation, type) and issubclass(annotation, pydantic.RootModel):
        yield from _options(annotation.model_fields["root"].annotation, tags)
    elif get_args(annotation) and get_origin(annotation) not in (tuple, list, dict, Mapping, Literal):
        for item in get_args(annotation):
            yield from _options(item, tags)
    else:
        yield tags, annotation


@cache
def _is_number(annotation: Any) -> bool:
    """Whether numbers are expected, alone or in lists and mappings, and truth values are not."""
    leaves = _leaves(annotation)
    return bool(leaves & {int, float}) and leaves <= {int, float, NoneType}


def _leaves(annotation: Any) -> set[Any]:
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        arguments = arguments[:1]
    elif get_origin(annotation) in (dict, Mapping):
        arguments = arguments[1:]
    return set().union(*map(_leaves, arguments)) - {...} if arguments else {annotation}


def _holds_truth_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_truth_value, value)))
