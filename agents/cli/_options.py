"""Options that several commands take, and what is read from them."""

import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from agents.errors import InputError

Long = Literal["error", "mean", "truncate"]  # what to do with a text longer than a span; see `LatentModel.encode`

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A model folder or hub id; by default the packaged model.", show_default=False),
]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same text on the same machine.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")]
ContextOption = Annotated[str | None, typer.Option("--context", "-c", help="The visible text to continue.")]
ContextFileOption = Annotated[
    Path | None, typer.Option("--context-file", help="Read it from a UTF-8 file; - is standard input.")
]
LongOption = Annotated[Long, typer.Option("--long", help="What to do with a text longer than one span.")]
GuidanceScaleOption = Annotated[
    float, typer.Option("--guidance-scale", help="Classifier-free guidance; 1 does without.")
]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0, help="0 is greedy.")]
TopPOption = Annotated[float, typer.Option("--top-p", help="Keep the likeliest tokens of this total probability.")]


def unfold(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer that takes one by one the options that `command` takes as records.

    A parameter that is annotated with a dataclass becomes its fields, which are annotated as options. So a group of
    options is declared once, and handed on as one record.
    """
    hints = get_type_hints(command, include_extras=True)
    records = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters = []
    for name, parameter in signature(command).parameters.items():
        if name not in records:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))
            continue
        kinds = get_type_hints(records[name], include_extras=True)
        for field in fields(records[name]):
            default = Parameter.empty if field.default is MISSING else field.default
            made = Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=kinds[field.name])
            parameters.append(made)

    @wraps(command)
    def unfolded(**values: Any) -> None:
        for name, record in records.items():
            values[name] = record(**{field.name: values.pop(field.name) for field in fields(record)})
        command(**values)

    unfolded.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what typer asks for
    unfolded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return unfolded


def read_context(context: str | None, file: Path | None) -> str:
    """The visible text: given itself, or read from a UTF-8 file (`-`: from standard input).

    Raises:
        typer.BadParameter: both or neither are given.
        TextError: it cannot be read or is not text.
    """
    if (context is None) == (file is None):
        raise typer.BadParameter("give exactly one of --context TEXT and --context-file FILE")
    from steer.text import check_text, read_text

    if context is not None:
        return check_text(context, "--context", allow_empty=True)
    assert file is not None
    if str(file) != "-":
        return read_text(file, "--context-file")
    try:
        return check_text(sys.stdin.buffer.read().decode("utf-8-sig"), "standard input", allow_empty=True)
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 (byte {error.start}); convert it first") from error


def refuse_existing(path: Path, *, overwrite: bool, option: str = "--out") -> None:
    """Raise if a file would be overwritten without leave.

    Raises:
        InputError: it exists, and `overwrite` is false, or it is a folder.
    """
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder; give the name of a file in it")
    if path.exists() and not overwrite:
        raise InputError(f"{option} {path} exists; choose another name, or pass --overwrite")
