"""YAML files that people write (scenarios, experiments, recipes, rewards): read strictly, errors name line and key.

A file's records are subclasses of `steer.records.StrictRecord`. To read one:

```python
file = read_yaml(path, "recipe", expected="name, data and autoencoder", error=RecipeError)
with file.checked(Recipe):                       # pydantic's errors leave as `RecipeError`, with lines
    return Recipe.model_validate(file.data)
```

`checked` finds the keys that each part may have, for its suggestions, by walking the record's annotations; the tags of
discriminated unions, which pydantic puts into the place of an error, are left out. Whatever is raised inside the block
as a `pydantic.ValidationError` of that record is told in this way, so checks across several files (a recipe and those
that it continues) can stand in it too.

What is read is YAML 1.1 without its traps: no aliases, tags or merge keys, no equal keys, no sexagesimal or octal
numbers, no dates (these are text, as in YAML 1.2). `yes`, `no`, `on` and `off` are truth values, which `StrictRecord`
refuses where a number is expected. JSON is YAML: surrogate pairs are joined.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from steer.records import describe_errors, shown_key
from steer.text import read_text

MAX_CHARACTERS = 200_000
MAX_DEPTH = 50

_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_TRAPS = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")  # 010 is 8, and 1:30 is 90
_DROPPED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")
_STRING = "tag:yaml.org,2002:str"


@dataclass(frozen=True)
class YamlFile:
    """A file that was read.

    Attributes:
        path: of the file.
        root: of the tree of nodes, which know their lines.
        data: what the file says.
        error: class of the errors that are raised about it.
    """

    path: str | Path
    root: yaml.MappingNode
    data: dict[str, Any]
    error: type[Exception]

    @contextmanager
    def checked(self, record: type[pydantic.BaseModel]) -> Iterator[None]:
        """Turn pydantic's errors about `record` into errors of the file, one line `file:line: key: problem` each.

        Raises:
            Exception: of class `error`.
        """
        try:
            yield
        except pydantic.ValidationError as error:
            raise self.error(describe_errors(error, record, self.path, self.root)) from error


def read_yaml(path: str | Path, what: str, *, expected: str, error: type[Exception]) -> YamlFile:
    """Read a YAML mapping.

    Args:
        path: of the file.
        what: it should be, for messages.
        expected: keys that a reader would look for, for messages.
        error: class of the errors to raise.

    Raises:
        TextError: the file is missing, unreadable, or not UTF-8.
        Exception: of class `error`: it is no such YAML, or too long or too deep to be a file that somebody wrote.
    """
    text = read_text(path, what)
    if len(text) > MAX_CHARACTERS:
        raise error(f"{path}: a {what} of {len(text):,} characters; expected at most {MAX_CHARACTERS:,}")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            found = "nothing" if root is None else "a list" if isinstance(root, yaml.SequenceNode) else "plain text"
            raise error(f"{path}: expected a mapping with {expected}; got {found}")
        return YamlFile(path, root, loader.construct_document(root), error)
    except _Refused as refused:
        raise error(f"{path}:{refused.line}: {refused}") from None
    # A number of over 4,300 digits is a ValueError.
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        if isinstance(problem, error):
            raise
        mark = getattr(problem, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        reason = getattr(problem, "problem", None) or (str(problem).splitlines() or [type(problem).__name__])[0]
        raise error(f"{where}: not valid YAML: {reason}") from problem


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


class _Refused(Exception):
    """Something that is YAML and is not taken here."""

    def __init__(self, mark: yaml.Mark, message: str) -> None:
        super().__init__(message)
        self.line = mark.line + 1


class _Loader(yaml.SafeLoader):
    """YAML without its traps; see the module."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag not in _DROPPED]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, refused where it is an alias, has a tag, or lies too deep."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(event.start_mark, f"aliases (*{event.anchor}) are not supported; write the value out again")
        if getattr(event, "tag", None) is not None:
            raise _Refused(event.start_mark, f"tags ({event.tag}) are not supported; leave it out")
        if self.depth >= MAX_DEPTH:
            raise _Refused(event.start_mark, f"nested too deeply; expected at most {MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """A value; surrogate pairs, in which JSON escapes what lies beyond 16 bits, are joined."""
        node = super().compose_scalar_node(anchor)
        node.value = _SURROGATES.sub(
            lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), node.value
        )
        if not node.value.isascii() and any("\ud800" <= character <= "\udfff" for character in node.value):
            raise _Refused(node.start_mark, "half of a surrogate pair (such as \\ud83d) is no character")
        if node.style is None and _TRAPS.fullmatch(node.value):
            node.tag = _STRING
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping, refused where a key stands twice: YAML's readers keep the last one without a word."""
        node = super().compose_mapping_node(anchor)
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise _Refused(key.start_mark, f"{shown_key(key.value)}: this key stands here twice")
                keys.add(key.value)
        return node
