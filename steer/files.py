"""Small files that are there whole or not at all, locks on files, and hashes of files."""

import hashlib
import os
import platform
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor


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


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the operating system's lock on a file: gives True if this process has it now, False if another one does.

    A process that dies, however it dies, lets go at that moment: no lock is ever left over.

    Args:
        path: of the lock's file; it is made, and deleted afterwards. It names its holder, for people. Links are not
            followed.
        wait: until the other one lets go.

    Raises:
        OSError: the file cannot be written, or its file system knows no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            if not lock_descriptor(descriptor, blocking=wait):
                yield False
                return
            if _is_at(descriptor, path):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} on {platform.node()} since {time.ctime()}\n".encode())
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at that path: its last holder may just have deleted it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
