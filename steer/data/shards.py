"""Encoding many stories in parts that are kept, so that a stage that was stopped goes on where it was."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from steer.errors import TrainingError
from steer.heads.stored import read_tensors

logger = logging.getLogger(__name__)

PART = 200  # stories per file


def encode_in_parts(
    texts: Sequence[str],
    encode: Callable[[Sequence[str], int], dict[str, Tensor]],
    stage: Path,
    plan: dict[str, Any],
    *,
    size: int = PART,
) -> list[dict[str, Tensor]]:
    """Encode stories; what is there under `stage/latents` is not encoded again.

    Args:
        texts: stories.
        encode: from some stories and the number of the first to tensors. Floating-point ones are kept as float16.
        stage: folder of the stage; `plan.json` says what is encoded.
        plan: what the result depends on besides the texts.
        size: stories per part.

    Returns:
        The tensors of each part, as they are kept.

    Raises:
        TrainingError: the folder was begun with something else.
    """
    folder = stage / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    plan = {**plan, "stories": hashlib.sha256("\0".join(texts).encode()).hexdigest()}
    path = stage / "plan.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if wrong := sorted(name for name in plan.keys() | found.keys() if plan.get(name) != found.get(name)):
            raise TrainingError(f"{stage} was begun with another {' and '.join(wrong)}; train into a new folder")
    path.write_text(json.dumps(plan, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    parts = []
    for first in range(0, len(texts), size):
        file = folder / f"{first // size:05d}.safetensors"
        if not file.is_file():
            part = encode(texts[first : first + size], first)
            half = {name: t.to(torch.float16) if t.is_floating_point() else t for name, t in part.items()}
            save_file(half, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
            logger.info("%s: encoded %d of %d stories", stage.name, min(first + size, len(texts)), len(texts))
        parts.append(read_tensors(file))
    return parts
