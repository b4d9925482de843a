"""Saved search trees: the files that a command names, and what makes words of their tokens."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli._models import quiet_libraries
from agents.cli._output import Output
from agents.errors import InputError
from steer.files import check_folder

if TYPE_CHECKING:
    from steer.search.tree import Tree

FOLDER = "search"  # where a run keeps its trees

TreesArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A tree file, or a run's folder that holds search/*.safetensors.")
]
RootOption = Annotated[int | None, typer.Option("--root", min=0, help="Number of a root, counted from 0.")]
WordsOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Whose tokenizer makes words of the tokens; by default the tree's own model."),
]
ToText = Callable[[Sequence[int]], str]


def find_trees(run: Path) -> list[Path]:
    """The tree files that RUN names: itself, or those in its folder `search`, or in itself, sorted by name.

    Raises:
        InputError: there are none.
    """
    if run.is_file():
        return [run]
    if not run.exists():
        raise InputError(f"no search tree at {run}")
    try:
        check_folder(run)
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error
    found = sorted((run / FOLDER).glob("*.safetensors")) or sorted(run.glob("*.safetensors"))
    if not found:
        raise InputError(f"{run} holds no search tree; expected {run / FOLDER}/*.safetensors")
    return found


def open_words(say: Output, tree: "Tree", record: Mapping[str, Any], model: str | None) -> ToText | None:
    """What makes words of a tree's tokens: the tokenizer of `model`, or of the model that the record names.

    Nothing is downloaded. Where the record's own model has no tokenizer here, a note tells so, and it is None.

    Raises:
        SteerError: `model` was asked for and has no tokenizer, or one that does not know the tree's tokens.
    """
    from steer.errors import CheckpointError, ModelNotFound

    name = model or record.get("model")
    try:
        if not isinstance(name, str):
            raise ModelNotFound("the tree does not tell its model")
        with say.status("loading the tokenizer"):
            quiet_libraries(say)
            tokenizer = _tokenizer(name)
        highest = max(int(tree.tokens[: tree.size].max()), *(max(context, default=0) for context in tree.contexts))
        if highest >= len(tokenizer):
            raise ModelNotFound(f"the tokenizer of {name!r} has {len(tokenizer)} tokens, the tree has token {highest}")
    except (ModelNotFound, CheckpointError) as error:
        if model is not None:
            raise
        say.note(f"showing token ids: {error}; --model FOLDER names a model with the tree's tokenizer")
        return None
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True)


def of_root(record: Mapping[str, Any], key: str, number: int) -> Any:
    """What a record's list says about one root, or None."""
    values = record.get(key)
    return values[number] if isinstance(values, list) and number < len(values) else None


def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    from steer.errors import ModelNotFound
    from steer.models.base import check_files
    from steer.models.checkpoint import PACKAGED_BASE, fetch, packaged_model
    from steer.models.config import CONFIG_NAME, LatentConfig

    # Records hold the model's own name, which differs from its folder's in capitals.
    packaged = name.lower() == packaged_model().name and not Path(name).is_dir()
    folder = fetch(packaged_model().name if packaged else name, local_files_only=True)
    where: str | Path = folder
    if (folder / CONFIG_NAME).is_file():
        base = LatentConfig.load(folder).base.name
        where = folder / PACKAGED_BASE if base == PACKAGED_BASE else base
    check_files(Path(where))
    try:
        return AutoTokenizer.from_pretrained(where, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFound(f"no tokenizer in {str(where)!r}: {reason}") from error
