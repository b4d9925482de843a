"""The folder of a run: names that both kinds of experiments use, files that are there whole or not at all, and claims.

A claim is a lock of the operating system on its file (`flock`), so a process that dies, however it dies, lets go of
its cell at that moment: there are no stale claims to recover, and the next process takes the file over. On Windows
nothing is locked: there, run one process per folder.
"""

import json
import os
import platform
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.errors import RunExists, RunWriteError
from agents.log.chain import write_atomic

CELLS, CLAIMS = "cells", "claims"
RESULTS, TABLE, SAMPLES = "results.json", "table.md", "samples.jsonl"


def make_folder(folder: Path, *parts: str) -> None:
    """Make a folder and its parts, where they are not there.

    Raises:
        RunWriteError: the file system refused.
    """
    try:
        for path in (folder, *(folder / name for name in parts)):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunWriteError(f"cannot write {folder}: {error.strerror}") from error


def check_empty(folder: Path, ours: Collection[str]) -> None:
    """See that a folder for a new run holds nothing but what a start that was stopped has left.

    Raises:
        RunExists: it holds something else than `ours`.
    """
    if strangers := sorted(path.name for path in folder.iterdir() if path.name.removesuffix(".part") not in ours):
        raise RunExists(f"{folder} holds something else ({strangers[0]}); choose another --out")


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write files by name, in their order, each whole or not at all.

    Returns:
        Their paths.

    Raises:
        RunWriteError: the file system refused.
    """
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def json_lines(rows: Iterable[Any]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def claim(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Claim what a file stands for: gives True if this process has it now, False if another one does.

    Args:
        path: of the claim's file; it is made, and deleted afterwards. It names its holder, for people.
        wait: until the other one lets go.

    Raises:
        RunWriteError: the file cannot be written, or its file system knows no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunWriteError(f"cannot write {path}: {error.strerror}") from error
    try:
        while not (mine := _lock(descriptor, path, wait=wait)) and wait:
            os.close(descriptor)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if mine:
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} on {platform.node()} since {time.ctime()}\n".encode())
        try:
            yield mine
        finally:
            if mine:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, *, wait: bool) -> bool:
    """Lock an open file, if it is still the one at that path: its last holder may just have deleted it."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError as error:
        raise RunWriteError(f"cannot lock {path}: {error.strerror}; use a folder on a local disk") from error
