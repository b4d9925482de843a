"""The folder of a stage: what it was begun with, so that it is not continued with other settings, and its end."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from steer.errors import TrainingError
from steer.files import write_atomic
from steer.records import differences

DONE = "done.json"
SETTINGS = "settings.json"
FREE = {"compile", "gradient_checkpointing"}  # how a step is computed, not what is learned


def is_done(folder: Path) -> bool:
    """Whether a stage has finished: its `done.json` is written last."""
    return (folder / DONE).is_file()


def mark_done(folder: Path, summary: dict[str, Any]) -> None:
    """Write `done.json` with the stage's figures and the kind of machine, atomically."""
    write_atomic(folder / DONE, json.dumps({"machine": machine(), **summary}, indent=2, sort_keys=True) + "\n")


def machine() -> str:
    """What training runs on, in a few words: the GPU's name, or the number of CPU threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}"


def claim(stage: Path, settings: Mapping[str, Any]) -> bool:
    """Keep what a stage is begun with, or compare it with that, where there is a checkpoint or an end.

    Args:
        stage: folder of the stage.
        settings: all that its result depends on, as JSON has it.

    Returns:
        Whether none were kept before, or the same.

    Raises:
        TrainingError: it was begun with others, which are named; or what it was begun with is lost.
    """
    file = stage / SETTINGS
    changed, started = changes(file, settings), begun(stage)
    if started and not file.is_file():
        raise TrainingError(f"{file}, what the stage was begun with, is missing; put it back, or use a new folder")
    if changed and started:
        raise TrainingError(
            f"{stage} was begun with other settings: {'; '.join(changed)}. Put them back, or train into a new folder"
        )
    if not started and PartialState().is_main_process:
        keep(file, settings)
    return not changed


def keep(file: Path, settings: Mapping[str, Any]) -> None:
    """Write settings; the file's folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def changes(file: Path, settings: Mapping[str, Any]) -> list[str]:
    """In words, what is other in settings than in those that a file keeps; nothing where there is no file."""
    if not file.is_file():
        return []
    before, now = json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(settings))
    return [said for key, said in differences(before, now) if key.rpartition(".")[2] not in FREE]


def begun(stage: Path) -> bool:
    """Whether a stage has a checkpoint, or is done."""
    return is_done(stage) or next(stage.glob("**/checkpoint-*"), None) is not None


def tokenizer_digest(tokenizer: Any) -> str:
    """What tells a tokenizer from another: a hash of its tokens, their numbers, and its merges if it has any."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = {"vocabulary": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    # Calls leave their padding and truncation there.
    kept = {name: part for name, part in whole.items() if name not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
