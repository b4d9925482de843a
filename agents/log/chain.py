"""The event log of a run: an append-only file, one JSON object per line, each holding the SHA-256 of the line before.

An event is reported only after it is on the disk. A line without its line break is one that was being written when the
process died: readers ignore it, and the next writer cuts it off.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

from filelock import lock_descriptor

from agents.errors import RunBusy, RunDamaged, RunWriteError
from agents.log.events import Event, decode_event, encode_event
from steer import files

FIRST = "0" * 64  # stands for the line before the first


@dataclass(frozen=True)
class LogContents:
    """What a log holds.

    Attributes:
        events: in order.
        head: hash of the last whole line.
        size: bytes of the whole lines.
        torn: bytes of a half-written line behind them.
    """

    events: tuple[Event, ...]
    head: str
    size: int
    torn: int


def read_log(path: Path) -> LogContents:
    """Read a log and verify its chain; a log that is not there is empty. Changes nothing.

    Raises:
        RunDamaged: a line is no event, or does not follow the one before it.
    """
    try:
        return _parse(files.read_plain(path), path)
    except FileNotFoundError:
        return LogContents((), FIRST, 0, 0)
    except OSError as error:
        raise RunDamaged(f"cannot read {path}: {error.strerror}") from error


def _parse(data: bytes, path: Path) -> LogContents:
    size = data.rfind(b"\n") + 1
    events, head = [], FIRST
    for number, line in enumerate(data[:size].split(b"\n")[:-1], start=1):
        try:
            event, previous = decode_event(line)
        except RunDamaged as error:
            raise RunDamaged(f"{path}:{number}: {error}; it was changed") from error
        # A second key, a space or another number for the same would be passed over, but not by every reader.
        if encode_event(event, previous) != line + b"\n":
            raise RunDamaged(f"{path}:{number}: this line is not as it was written; it was changed")
        if previous != head:
            raise RunDamaged(
                f"{path}:{number}: the chain is broken: it follows a line with SHA-256 {previous[:12]}..., but "
                f"the line before has {head[:12]}...; one of the two was changed, or a line is missing"
            )
        events.append(event)
        head = hashlib.sha256(line + b"\n").hexdigest()
    return LogContents(tuple(events), head, size, len(data) - size)


@final
class EventLog:
    """A log that is open for writing, by this process alone. A half-written last line is cut off.

    Attributes:
        path: the file.
        events: what was in it when it was opened.

    Raises:
        RunBusy: another process has it open.
        RunDamaged: see `read_log`.
        RunWriteError: it cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Unbuffered: after an error nothing lingers in a buffer that closing would write.
            self._file = files.open_plain(path, "r+b" if path.exists() else "x+b")
        except OSError as error:
            raise RunWriteError(f"cannot write {path}: {error.strerror}") from error
        try:
            if not lock_descriptor(self._file.fileno(), blocking=False):
                raise RunBusy(f"{path} is being written by another process; wait for it, or stop it")
            contents = _parse(self._file.read(), path)
            self.events, self._head, self._size = contents.events, contents.head, contents.size
            if contents.torn:
                self._file.truncate(self._size)
            self._file.seek(self._size)
            files.sync_folder(path.parent)
        except OSError as error:
            self._file.close()
            if isinstance(error, RunBusy):
                raise
            raise RunWriteError(_refused(path, error)) from error
        except BaseException:
            self._file.close()
            raise

    def append(self, events: Iterable[Event]) -> None:
        """Write events; when it returns, they are on the disk.

        Raises:
            RunWriteError: the file system refused. The log is as it was before, or ends with a half-written line.
        """
        head, data = self._head, b""
        for event in events:
            line = encode_event(event, head)
            head, data = hashlib.sha256(line).hexdigest(), data + line
        try:
            files.write_all(self._file, data)
            os.fsync(self._file.fileno())
        except OSError as error:
            self._undo()
            raise RunWriteError(_refused(self.path, error)) from error
        self._head, self._size = head, self._size + len(data)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _undo(self) -> None:
        try:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError:
            pass  # the next writer cuts the half-written line off


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a small file so that it is there whole or not at all; see `steer.files.write_atomic`.

    Raises:
        RunWriteError: the file system refused.
    """
    try:
        files.write_atomic(path, content)
    except OSError as error:
        raise RunWriteError(f"cannot write {path}: {error.strerror or error}") from error


def _refused(log: Path, error: OSError) -> str:
    return (
        f"cannot write {log}: {error.strerror or error}; all turns before are safe: make room, then go on with "
        f"`steer resume {log.parent}`"
    )
