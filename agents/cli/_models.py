"""Loading models for a command, with the libraries' small talk kept off the screen."""

import logging
import warnings
from typing import TYPE_CHECKING

import typer

from agents.cli._output import Output, output, show_logs

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel

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


def load_model(out: Output, name: str | None, *, dtype: str | None = None) -> "LatentModel":
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
