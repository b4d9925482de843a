"""Small files that are there whole or not at all."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a small file so that it is there whole or not at all, and still is after a crash of the machine.

    It is drafted beside its place as `NAME.part`, so one process at a time may write it.

    Args:
        path: of the file, in a folder that exists; a file that is there is replaced.
        content: bytes, or text, which is written as UTF-8 with its line breaks as they are.

    Raises:
        OSError: the file system refused; a file that was there before is as it was.
    """
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def copy_mode(files: Iterable[Path], like: Path) -> None:
    """Give files the permissions of another one: safetensors makes files that their owner alone can read.

    Raises:
        OSError: a file is not there, or is somebody else's.
    """
    mode = stat.S_IMODE(like.stat().st_mode)
    for file in files:
        file.chmod(mode)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable, where the system can.

    Raises:
        OSError: the folder is not there, or the file system refused.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
