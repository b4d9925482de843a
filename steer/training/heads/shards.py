"""Encoding many stories in parts that are kept, so that a stage that was stopped goes on where it was."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from steer.errors import TrainingError
from steer.heads.stored import read_tensors
from steer.training.stage import SETTINGS, changes, keep

logger = logging.getLogger(__name__)

PART = 200  # stories per file


def encode_in_parts(
    texts: Sequence[str],
    encode: Callable[..., dict[str, Tensor]],
    folder: Path,
    settings: dict[str, Any],
    *,
    size: int | None = None,
) -> list[dict[str, Tensor]]:
    """Encode stories; parts that are in the folder are not encoded again.

    Args:
        texts: stories.
        encode: from some stories and `first`, the number of the first, to tensors; floating-point ones are kept as
            float16.
        folder: of the parts; its `settings.json` says what they are made of.
        settings: what the result depends on besides the texts.
        size: stories per part; by default `PART`.

    Returns:
        The tensors of each part, as they are kept.

    Raises:
        TrainingError: the parts in the folder are made of something else.
    """
    size = size or PART
    settings = {**settings, "stories": hashlib.sha256("\0".join(texts).encode()).hexdigest()}
    if changed := changes(folder / SETTINGS, settings):
        raise TrainingError(f"{folder} is made of something else: {'; '.join(changed)}. Train into a new folder")
    keep(folder / SETTINGS, settings)
    parts = []
    for first in range(0, len(texts), size):
        file = folder / f"{first // size:05d}.safetensors"
        if not file.is_file():
            part = encode(texts[first : first + size], first=first)
            half = {name: t.to(torch.float16) if t.is_floating_point() else t for name, t in part.items()}
            save_file(half, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
            logger.info("encoded %d of %d stories", min(first + size, len(texts)), len(texts))
        parts.append(read_tensors(file))
    return parts
