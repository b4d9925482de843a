"""Loading any causal language model that `transformers` knows, with errors that a user can act on."""

import difflib
import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.utils as hub
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as bars

from steer.errors import ArgumentError, CheckpointError, ModelNotFound
from steer.files import check_folder
from steer.models.sources import resolve_base

logger = logging.getLogger(__name__)


# Switches of whole processes, which two threads must not set and restore in turns. Loads wait for each other anyway:
# transformers sets torch's default dtype while it loads.
_SWITCHES = threading.RLock()


@contextmanager
def quietly() -> Iterator[None]:
    """A block, or as `@quietly()` a function, in which transformers, PEFT and the hub show no bars and warn of nothing.

    Errors are raised as ever, and records of logging pass. One thread is in such a block at a time.
    """
    with _SWITCHES, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown, downloads = bars.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
        bars.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                bars.enable_progress_bar()
            (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()


def resolve_device(device: str | int | torch.device | None = None) -> torch.device:
    """The given device, else CUDA where it is there, else the CPU.

    Raises:
        ArgumentError: there is no such device, or this torch cannot use it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        expected = "cpu or cuda" if torch.cuda.is_available() else "cpu (this torch sees no GPU)"
        raise ArgumentError(f"device {device!r} cannot be used: {_reason(error)}; expected {expected}") from error
    return found


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """A torch dtype from a name.

    By default float32 on a CPU (half precision is slow or unsupported there) and bfloat16 elsewhere.

    Raises:
        ArgumentError: no such floating-point dtype.
    """
    if dtype is None or dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ArgumentError(f"dtype {dtype!r} is no floating-point type; use float32, bfloat16 or float16")
    return found


def check_options(options: Mapping[str, Any], *functions: Callable[..., Any]) -> None:
    """Look whether keyword arguments that are passed on are any that the functions behind take.

    Raises:
        ArgumentError: one is not; names the likely one.
    """
    known = {
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name.removeprefix("torch_"), known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ArgumentError(f"there is no option {name!r}; {hint}expected one of {', '.join(sorted(known))}")


def missing_folder(name: str | Path) -> bool:
    """Whether a base's name is clearly a path, and no folder is there: then the hub need not be asked."""
    path = Path(name)
    deep = len(path.parts) > 2  # a hub id has two parts at most
    return (deep or path.is_absolute() or str(name).startswith((".", "~"))) and not path.is_dir()


@quietly()
def load_base(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | int | torch.device | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    quantization_config: Any = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a base model and its tokenizer, in evaluation mode and frozen.

    Args:
        name: a folder, a hub id, a `.gguf` file, `pip:DISTRIBUTION` or a known base, see `steer.models.sources`.
        revision: branch, tag or commit on the hub.
        dtype: weights' type; see `resolve_dtype`.
        device: where to; see `resolve_device`.
        local_files_only: never ask the hub.
        token: hub token.
        quantization_config: passed on to `transformers`, for 4-bit bases (`BitsAndBytesConfig`).

    Returns:
        The model and the tokenizer; a tokenizer without padding token uses its end token.

    Raises:
        ArgumentError: there is no such dtype or device.
        ModelNotFound: nothing can be loaded from there.
        CheckpointError: a weight file is truncated or damaged, or the folder holds links out of it, or devices.
    """
    name = resolve_base(name)
    if missing_folder(name):
        raise ModelNotFound(
            f"cannot load a causal language model from {str(name)!r}: no such folder; expected a folder or a hub id"
        )
    place = resolve_device(device)
    kind = resolve_dtype(dtype, place)
    options: dict[str, Any] = {
        "revision": revision,
        "local_files_only": local_files_only or Path(name).is_dir(),
        "token": token,
        # Without it the user is asked on stdin whether to run a folder's own code.
        "trust_remote_code": False,
    }
    check_files(Path(name))
    tokenizer = _load_tokenizer(name, options)
    try:
        extra = (
            {"quantization_config": quantization_config, "device_map": {"": place}}
            if quantization_config is not None
            else {}
        )
        model = AutoModelForCausalLM.from_pretrained(name, dtype=kind, **options, **extra)
    except SafetensorError as error:
        raise CheckpointError(
            f"the weights of {name} are truncated or damaged ({error}); download or copy them again"
        ) from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelNotFound(
            f"cannot load a causal language model from {str(name)!r}: {_reason(error)}; expected a folder or a hub id"
        ) from error
    if quantization_config is None:
        model.to(place)  # type: ignore[arg-type]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    model.eval()
    return model, tokenizer


def check_files(folder: Path) -> None:
    """See that a model's folder holds nothing but plain files and folders, and links to such within it.

    In the hub's cache, where a model's files are links, these may lead to the files of that model's cache.

    Args:
        folder: of a model; what is no folder (an id of the hub) is passed over.

    Raises:
        CheckpointError: it holds a link out of it, a pipe or a device.
    """
    if not folder.is_dir():
        return
    place = folder.resolve()
    cache = [place.parents[1] / "blobs"] if place.parent.name == "snapshots" else []
    try:
        check_folder(place, links_to=[place, *cache])
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}") from error


def _load_tokenizer(name: str | Path, options: dict[str, Any]) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if Path(name).is_dir() and (Path(name) / "config.json").is_file():
            raise ModelNotFound(
                f"the base in {str(name)!r} has no tokenizer that loads: {_reason(error)}; copy its tokenizer.json and "
                "tokenizer_config.json there"
            ) from error
        raise ModelNotFound(
            f"cannot load a causal language model from {str(name)!r}: {_reason(error)}; expected a folder or a hub id"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of what a library said."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def backbone(model: Any) -> Any:
    """The part of a causal LM below the output head; its last hidden state is taken after the final norm."""
    return getattr(model, model.base_model_prefix)


def additive_mask(mask: Tensor, *, causal: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """`[B, 1, T, T]` additive mask from a padding mask: 0 where a query may look, the lowest finite number where not.

    `transformers` hands such a mask on as it is; a boolean one would be *added* under eager attention.

    Args:
        mask: `[B, T]`, 1 for tokens that count.
        causal: whether later places are hidden too.
        dtype: of the attention.
    """
    length = mask.shape[1]
    allowed = mask[:, None, None, :].bool().expand(-1, 1, length, -1)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    # A query that would see nothing sees itself, so that softmax stays finite.
    alone = ~allowed.any(-1, keepdim=True)
    allowed = allowed | (alone & torch.eye(length, dtype=torch.bool, device=mask.device))
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, torch.finfo(dtype).min)
