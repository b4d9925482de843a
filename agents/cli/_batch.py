"""Batches in JSON lines: read and checked before anything is written, resumable, one durable line per row.

Rows are written in groups that depend on the input alone. A command that continues a stopped one therefore computes the
same groups again, and what comes out is the same, byte for byte, as if it had never been stopped.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.cli._output import Progress, plain
from agents.errors import InputError
from steer.files import write_atomic

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel

Key = int | str
MADE = "written_with"  # tells lines of other settings and models apart
_WRITTEN = ("text", "spans", "search", MADE)  # what lines hold that did not come from the input


@dataclass(frozen=True)
class Pair:
    """One line of the input.

    Attributes:
        number: of the line, from 1.
        id: what the line calls itself.
        context, terminal: its texts; the terminal is empty where none is needed.
        fields: all that the line holds, in its order.
    """

    number: int
    id: Key
    context: str
    terminal: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """A batch and how far it is.

    Attributes:
        path: where its lines are written.
        pairs: the whole input.
        done: the lines that are there, by id.
        made: digests of `settings` and, once it is loaded, of the `model`; kept in every line.
        group: rows that are written at once.
        overwrite: begin with an empty file.
    """

    path: Path
    pairs: Sequence[Pair]
    done: Mapping[Key, Mapping[str, Any]]
    made: Mapping[str, str]
    group: int
    overwrite: bool = False


def read_pairs(path: Path, *, need_terminal: bool) -> list[Pair]:
    """All lines of a batch; blank lines are passed over.

    Raises:
        InputError: a line is no JSON object, lacks a field, has one of a wrong type or an id that was there before.
        TextError: a context or terminal cannot be used as text.
        OSError: the file cannot be read.
    """
    from steer.errors import TextError
    from steer.text import check_text

    pairs: list[Pair] = []
    lines: dict[Key, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        fields = _object(line, where)
        key = fields.get("id")
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise InputError(f'{where}: expected an "id" that is a string or an integer, got {_found(fields, "id")}')
        if key in lines:
            raise InputError(f"{where}: id {key!r} was used on line {lines[key]}; every line needs its own")
        lines[key] = number
        if not isinstance(fields.get("context"), str):
            raise InputError(f'{where}: expected a "context" that is a string, got {_found(fields, "context")}')
        terminal = fields.get("terminal")
        if need_terminal and not isinstance(terminal, str):
            raise InputError(f'{where}: expected a "terminal" that is a string, got {_found(fields, "terminal")}')
        try:
            check_text(fields["context"], "context", allow_empty=True)
            if need_terminal:
                check_text(terminal, "terminal")
        except TextError as error:
            raise TextError(f"{where}: {error}") from error
        pairs.append(Pair(number, key, fields["context"], terminal if isinstance(terminal, str) else "", fields))
    if not pairs:
        raise InputError(f"{path} holds no lines; expected JSON objects with id, context and terminal, one per line")
    return pairs


def read_done(path: Path, pairs: Sequence[Pair]) -> dict[Key, dict[str, Any]]:
    """Lines that an earlier command wrote, by id. A last line cut short by a kill does not count.

    Raises:
        InputError: the file holds something else: no JSON, an id that the batch lacks, or other texts for an id.
    """
    if not path.exists():
        return {}
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; give the name of a file in it")
    wanted = {pair.id: pair for pair in pairs}
    done: dict[Key, dict[str, Any]] = {}
    for number, line in enumerate(_whole_lines(path), start=1):
        where = f"{path} line {number}"
        fields = _object(line, where)
        key = fields.get("id")
        pair = wanted.get(key) if isinstance(key, int | str) else None
        if pair is None or not {"text", "spans"} <= fields.keys():
            raise InputError(f"{where} does not come from this batch; choose another --out, or pass --overwrite")
        if {k: v for k, v in fields.items() if k not in _WRITTEN} != _given(pair, _WRITTEN):
            raise InputError(
                f"{where}: id {pair.id!r} had other fields then; choose another --out, or pass --overwrite"
            )
        done[pair.id] = fields
    return done


def digest(value: Any) -> str:
    """Twelve hexadecimal digits that stand for anything that JSON can hold."""
    text = json.dumps(plain(value), sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def check_made(batch: Batch) -> None:
    """Refuse to go on with lines that were written with other settings or another model.

    Raises:
        InputError: one was; says with what.
    """
    for key, fields in batch.done.items():
        found = fields.get(MADE)
        for name, now in batch.made.items():
            if not isinstance(found, Mapping) or found.get(name) != now:
                what = "another model" if name == "model" else "other options (method, spans, guidance, seed, ...)"
                raise InputError(
                    f"{batch.path}: id {key!r} was written with {what}; give those again, choose another --out, or "
                    "pass --overwrite"
                )


def check_terminals(model: "LatentModel", pairs: Sequence[Pair], long: str) -> None:
    """Encode all terminals once, so that one that does not fit a span is told before hours of writing.

    Raises:
        TextError: names the line.
    """
    from steer.errors import TextError

    try:
        model.encode([pair.terminal for pair in pairs], long=long)
    except TextError:
        for pair in pairs:
            try:
                model.encode([pair.terminal], long=long)
            except TextError as error:
                raise TextError(f"line {pair.number}: terminal: {error}") from error
        raise


def count_long(model: "LatentModel", pairs: Sequence[Pair]) -> int:
    """How many terminals are longer than a span."""
    return sum(len(model.encoded_ids(pair.terminal)) > model.span_tokens for pair in pairs)


def write_missing(batch: Batch, write_rows: Callable[[Sequence[Pair]], list[dict[str, Any]]], show: Progress) -> None:
    """Append the rows that are not done, group by group, each line flushed to the disk; the file ends in input order.

    Args:
        batch: what to write, and where.
        write_rows: writes a group; returns for each of its rows the fields that its line gets beside those of the
            input: `text`, `spans` and perhaps `search`.
        show: is told how many rows are through.
    """
    path, pairs = batch.path, batch.pairs
    path.parent.mkdir(parents=True, exist_ok=True)
    end = 0 if batch.overwrite or not path.exists() else sum(len(line) for line in _whole_lines(path))
    with path.open("ab") as file:
        file.truncate(end)
        for start in range(0, len(pairs), batch.group):
            group = pairs[start : start + batch.group]
            if any(pair.id not in batch.done for pair in group):
                for pair, fields in zip(group, write_rows(group), strict=True):
                    if pair.id in batch.done:
                        continue
                    file.write(_line({**_given(pair), **plain(fields), MADE: dict(batch.made)}))
                    file.flush()
                    os.fsync(file.fileno())
            show("lines", start + len(group), len(pairs))
    _put_in_order(path, pairs)


def _put_in_order(path: Path, pairs: Sequence[Pair]) -> None:
    """Rows were appended behind those kept. Where the input has another order, replace the file by one in order."""
    lines = {json.loads(line)["id"]: line for line in _whole_lines(path)}
    order = [pair.id for pair in pairs]
    if list(lines) == order:
        return
    write_atomic(path, b"".join(lines[key] for key in order))


def _given(pair: Pair, without: Sequence[str] = ("text", "spans")) -> dict[str, Any]:
    return {key: value for key, value in pair.fields.items() if key not in without}


def _line(fields: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(fields, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate in a field that is only passed through
        return (json.dumps(fields) + "\n").encode("ascii")


def _whole_lines(path: Path) -> list[bytes]:
    """Lines that end with a newline; what stands behind the last one was cut short."""
    lines = path.read_bytes().splitlines(keepends=True)
    return lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
        return path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it first") from error


def _object(line: str | bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InputError(f"{where}: expected a JSON object with id, context and terminal, got {type(fields).__name__}")
    return fields


def _found(fields: dict[str, Any], name: str) -> str:
    return f"{type(fields[name]).__name__} {str(fields[name])[:40]!r}" if name in fields else "a line without it"
