"""Loading models and text for a command, with the libraries' small talk kept off the screen."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli.guard import InputError
from agents.cli.output import Output, output, show_logs

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A model folder or hub id; by default the packaged model.", show_default=False),
]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same text on the same machine.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")]

_NOISY = r"(accelerate|datasets|faiss|huggingface_hub|peft|sentence_transformers|torch|transformers)\b.*"


def talk(ctx: typer.Context) -> Output:
    """The `Output` of a command that trains: training is long, so what it reports is shown, unless told to be quiet."""
    say = output(ctx)
    if not say.quiet and not say.debug:
        show_logs(logging.INFO)
    quiet_libraries(say)
    return say


def quiet_libraries(out: Output) -> None:
    """Turn off what torch, transformers and their kin print about themselves; with --debug they keep talking.

    Errors are not touched: those are raised, not printed.
    """
    if out.debug:
        return
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=_NOISY)
    import huggingface_hub.utils
    import transformers.utils.logging

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    if not out.lively:
        huggingface_hub.utils.disable_progress_bars()


def load_model(out: Output, name: str | None, *, dtype: str | None = None) -> Any:
    """The latent model of a folder (ours or MiniHF's), a hub id, or None for the packaged one.

    Args:
        out: for the spinner.
        name: see above.
        dtype: of the weights, such as `bfloat16`; by default float32.

    Raises:
        SteerError: it cannot be found or loaded.
    """
    with out.status(f"loading {name or 'the packaged model'}"):
        quiet_libraries(out)
        import torch

        from steer.models.checkpoint import fetch, packaged_model
        from steer.models.config import CONFIG_NAME
        from steer.models.latent_model import LatentModel

        options = {} if dtype is None else {"dtype": getattr(torch, dtype)}
        folder = fetch(name or str(packaged_model()))
        if (folder / "vae.safetensors").is_file() and not (folder / CONFIG_NAME).is_file():
            return LatentModel.from_minihf(folder, **options)
        return LatentModel.from_pretrained(folder, **options)


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
