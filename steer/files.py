"""Files in folders that may come from strangers: opened without links, written whole or not at all, locked, hashed.

A folder of a run, an experiment or a model may have been made by somebody else. `check_folder` refuses one that holds
links, pipes or devices, wherever they lie in it; every file in it is then opened by `open_plain`, which follows no link
and never waits.
"""

import contextlib
import errno
import hashlib
import os
import platform
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Literal

from filelock import lock_descriptor

MAX_BYTES = 2**30  # of a file that is read at once; a sparse file of terabytes is a few bytes in an archive
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)


def open_plain(path: Path, mode: Literal["rb", "r+b", "xb", "ab", "x+b"]) -> FileIO:
    """Open a plain file, unbuffered: links are not followed, and nothing that could block is waited for.

    Args:
        path: of the file. The folders above are taken as they are; see `check_folder`.
        mode: of `open`; nothing is ever truncated.

    Raises:
        OSError: it is a link, a pipe, a device or a folder; or, where it is to be written, it is another file's too (a
            hard link); or whatever `open` raises.
    """
    try:
        file = open(path, mode, buffering=0, opener=_open)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _refusal(path, "it is a link, and links are not followed") from error
    try:
        _check_status(path, os.fstat(file.fileno()), written=mode != "rb")
    except OSError:
        file.close()
        raise
    return file


def read_plain(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a plain file; see `open_plain`.

    Raises:
        OSError: it cannot be read, is no plain file, or is larger than `max_bytes`.
    """
    with open_plain(path, "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            raise _refusal(path, f"it has {size:,} bytes; expected at most {max_bytes:,}")
        return file.readall()


def check_folder(folder: Path, *, links_to: Iterable[Path] = ()) -> None:
    """See that a folder holds nothing but plain files and folders, at any depth. The folder itself may be a link.

    What is put there while it is looked through, by another process, may be missed.

    Args:
        folder: to look through; one that is not there holds nothing.
        links_to: folders into which links may lead.

    Raises:
        OSError: it holds a link, a pipe, a socket or a device, or cannot be read.
    """
    roots = [root.resolve() for root in links_to]
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        _check_link(Path(entry.path), roots)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        _check_special(Path(entry.path))
        except (FileNotFoundError, NotADirectoryError):
            continue  # it was not there, or is gone meanwhile


def _check_link(link: Path, roots: list[Path]) -> None:
    if not roots:
        raise _refusal(link, "it is a link, and links are not followed; delete it, or put what it leads to here")
    target = link.resolve()
    if not any(target.is_relative_to(root) for root in roots):
        raise _refusal(link, f"it is a link out of the folder, to {target}; put what it leads to in its place")
    if not target.is_dir():
        _check_special(target)


def _check_special(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode):
            raise _refusal(path, "it is no plain file, but a pipe, a socket or a device; delete it")


def _check_status(path: Path, status: os.stat_result, *, written: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "it is no plain file")
    if written and status.st_nlink > 1:
        raise _refusal(path, "another name leads to the same file (a hard link); make it a file of its own, by copying")


def _refusal(path: Path, problem: str) -> OSError:
    return OSError(errno.EPERM, problem, str(path))


def _open(path: str, flags: int) -> int:
    if not _NO_LINKS and os.path.islink(path):
        raise OSError(errno.ELOOP, "it is a link", path)
    return os.open(path, flags | _NO_LINKS | _NO_WAITING, 0o666)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a small file so that it is there whole or not at all, and still is after a crash of the machine.

    It is drafted beside its place as `NAME.part`, so one process at a time may write it. Links are not followed: what
    lies at either name is replaced.

    Args:
        path: of the file, in a folder that exists; a file that is there is replaced.
        content: bytes, or text, which is written as UTF-8 with its line breaks as they are.

    Raises:
        OSError: the file system refused; a file that was there before is as it was.
    """
    draft = path.with_name(path.name + ".part")
    draft.unlink(missing_ok=True)
    with open_plain(draft, "xb") as file:
        write_all(file, content.encode() if isinstance(content, str) else content)
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which may take a part of it only at a time.

    Raises:
        OSError: the file system refused; a part may be written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


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
    """SHA-256 of a file, in hexadecimal. A link is followed: a model of the hub's cache is made of links.

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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINKS | _NO_WAITING, 0o644)
        try:
            _check_status(path, os.fstat(descriptor), written=True)
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
