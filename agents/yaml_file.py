"""YAML files that people write: read strictly, with errors that name the line and the key."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from agents.errors import ScenarioError

MAX_ERRORS = 8

KnownKeys = Mapping[tuple[str, ...], list[str]]


def read_yaml(text: str, path: str | Path, *, expected: str) -> tuple[yaml.MappingNode, Any]:
    """Parse a YAML mapping; keys that stand twice and aliases are refused.

    Args:
        text: of the file.
        path: of the file, for messages.
        expected: keys that a reader would look for, for messages.

    Returns:
        The tree of nodes, which know their lines, and the data.

    Raises:
        ScenarioError: it is no such YAML.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            found = "nothing" if root is None else "a list" if isinstance(root, yaml.SequenceNode) else "plain text"
            raise ScenarioError(f"{path}: expected a mapping with {expected}; got {found}")
        _check_nodes(root, path, set())
        return root, loader.construct_document(root)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ScenarioError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or (str(error).splitlines() or ["nested too deeply"])[0]
        raise ScenarioError(f"{where}: not valid YAML: {problem}") from error


def describe_errors(error: pydantic.ValidationError, root: yaml.Node, path: str | Path, known_keys: KnownKeys) -> str:
    """Pydantic's errors as lines `file:line: key: what is wrong`, the first eight.

    Args:
        error: what pydantic raised. An error that belongs deeper than where it was raised says so in its context, as
            `place`.
        root: of the file's nodes.
        path: of the file.
        known_keys: keys that each part may have, by the names that lead to it, for suggestions.
    """
    lines = [_describe(item, root, path, known_keys) for item in error.errors()]
    more = [f"... and {len(lines) - MAX_ERRORS} more"] if len(lines) > MAX_ERRORS else []
    return "\n".join(lines[:MAX_ERRORS] + more)


def _describe(error: Any, root: yaml.Node, path: str | Path, known_keys: KnownKeys) -> str:
    """One pydantic error as `file:line: key: what is wrong`."""
    loc = tuple(error["loc"])
    if place := error.get("ctx", {}).get("place"):
        loc += tuple(int(part) if part.isdigit() else part for part in place.split("."))
    line, siblings = _find(root, loc)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key"
        known = known_keys.get(tuple(part for part in loc[:-1] if isinstance(part, str)), [])
        if near := difflib.get_close_matches(str(loc[-1]), [k for k in known if k not in siblings], n=1):
            message += f"; did you mean {near[0]!r}?"
        elif known:
            message += f"; expected one of {', '.join(known)}"
    elif error["type"] == "missing":
        message = "this key is missing"
    elif isinstance(error["input"], str | int | float | bool | None):
        message += f" (got {error['input']!r})"
    return f"{path}:{line}: {'.'.join(map(str, loc)) or 'scenario'}: {message}"


def _find(root: yaml.Node, loc: tuple[Any, ...]) -> tuple[int, list[str]]:
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


def _check_nodes(node: yaml.Node, path: str | Path, seen: set[int]) -> None:
    """YAML readers silently keep the last of two equal keys; and an alias may hold the node that it stands in."""
    if id(node) in seen:
        line = node.start_mark.line + 1
        raise ScenarioError(f"{path}:{line}: YAML aliases (*name) of this value are not supported; write it out again")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise ScenarioError(f"{path}:{key.start_mark.line + 1}: {key.value}: this key stands here twice")
            keys.add(str(key.value))
            _check_nodes(key, path, seen)
            _check_nodes(value, path, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_nodes(value, path, seen)
