"""The event log of a run: an append-only file, one JSON object per line, each holding the SHA-256 of the line before.

Nothing in it depends on the clock, so that the same scenario, seed, model and machine give the same bytes. An event is
reported only after it is on the disk. A line without its line break is one that was being written when the process
died: readers ignore it, and the next writer cuts it off.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, final

import numpy as np
import pydantic

from agents.errors import RunBusy, RunDamaged, RunWriteError

FIRST = "0" * 64  # stands for the line before the first


class _Event(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class GoalInfo(_Event):
    """A goal as the run started with it; `vector_sha256` is of its float32 latent, little-endian."""

    character: str
    name: str
    goal: str
    kind: Literal["terminal", "avoid"]
    text: str
    weight: float
    by_turn: int
    vector_sha256: str


class OpeningEvent(_Event):
    """Start of a run: the visible opening, and what later figures refer to.

    Attributes:
        ids: token ids of the opening, the start of the visible context.
        max_context: visible tokens that the model is fed at most, the last ones.
        threshold: similarity from which a goal counts as reached.
        goals: for readers of the log; none of it is visible to the model.
    """

    type: Literal["opening"] = "opening"
    scenario: str
    title: str
    format: Literal["prose", "script"]
    method: Literal["annealed", "fixed", "unguided"]
    seed: int
    turns: int
    text: str
    ids: tuple[int, ...]
    max_context: int
    span_tokens: int
    threshold: float
    goals: tuple[GoalInfo, ...]


class Candidate(_Event):
    """An open goal that was weighed; see `agents.planner` for the score."""

    goal: str
    similarity: float
    weight: float
    urgency: float
    score: float


class PlanRecord(_Event):
    """What the planner decided for a turn.

    Attributes:
        goal: id of the active goal, None where none is open (or nothing is guided).
        since: turn in which it became active.
        step, steps: the turn's first span (from 0) within all spans that the schedule runs over.
        candidates: best first.
        weights: pull towards the goal, per span.
        voice: pull towards the voice, per span; empty where there is none.
        avoid: push away from each avoided goal, per span.
    """

    goal: str | None = None
    since: int | None = None
    step: int = 0
    steps: int = 0
    candidates: tuple[Candidate, ...] = ()
    weights: tuple[float, ...] = ()
    voice: tuple[float, ...] = ()
    avoid: dict[str, tuple[float, ...]] = {}


class TurnEvent(_Event):
    """One turn.

    Attributes:
        cue, cue_ids: the visible text that hands the turn over, and its tokens.
        text, ids: what the character wrote, as far as it was kept.
        context_tokens, context_sha256: number and hash (`hash_ids`) of the token ids that were fed, as the writer
            reports them.
        visible_tokens, visible_sha256: the same for the whole visible text after this turn.
        plan: see `PlanRecord`.
        similarities: for every goal (`character/goal`) its greatest cosine with a sentence of the turn or with the
            turn's last span; None where nothing was written.
        seed: of this turn.
        spans, drafts: written and proposed in this turn, before the cut.
        tokens: computed for them.
        ended: whether the model ended the story here.
    """

    type: Literal["turn"] = "turn"
    turn: int
    character: str
    name: str
    cue: str
    cue_ids: tuple[int, ...]
    text: str
    ids: tuple[int, ...]
    context_tokens: int
    context_sha256: str
    visible_tokens: int
    visible_sha256: str
    plan: PlanRecord
    similarities: dict[str, float | None]
    seed: int
    spans: int
    drafts: int
    tokens: int
    ended: bool


class GoalEvent(_Event):
    """A goal is settled: a terminal is `reached` or `failed`, an avoided one `failed` (it came up) or `kept` away."""

    type: Literal["goal"] = "goal"
    turn: int
    character: str
    goal: str
    kind: Literal["terminal", "avoid"]
    outcome: Literal["reached", "failed", "kept"]
    similarity: float | None


class EndEvent(_Event):
    """The run is complete: all turns are played, or the model ended the story and the scenario stops there."""

    type: Literal["end"] = "end"
    turns: int
    reason: Literal["turns", "story"]
    visible_tokens: int
    visible_sha256: str


Event = OpeningEvent | TurnEvent | GoalEvent | EndEvent
_ADAPTER: pydantic.TypeAdapter[Event] = pydantic.TypeAdapter(Annotated[Event, pydantic.Field(discriminator="type")])


def hash_ids(ids: Sequence[int]) -> str:
    """SHA-256 of token ids as little-endian 32-bit integers."""
    return hashlib.sha256(np.asarray(ids, dtype="<u4").tobytes()).hexdigest()


def encode_event(event: Event, previous: str) -> bytes:
    """The line of an event, line break included, after a line with the hash `previous`."""
    data: dict[str, Any] = {"prev": previous, **event.model_dump(mode="json")}
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


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
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise RunDamaged(f"cannot read {path}: {error.strerror}") from error
    size = data.rfind(b"\n") + 1
    events, head = [], FIRST
    for number, line in enumerate(data[:size].split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line)
            previous = fields.pop("prev")
            event = _ADAPTER.validate_python(fields)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise RunDamaged(f"{path}:{number}: this line is no event of this version; it was changed") from error
        if previous != head:
            raise RunDamaged(
                f"{path}:{number}: the chain is broken: it follows a line with SHA-256 {str(previous)[:12]}..., but "
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
            self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        except OSError as error:
            raise RunWriteError(f"cannot write {path}: {error.strerror}") from error
        try:
            _lock(self._file.fileno(), path)
            contents = read_log(path)
            self.events, self._head, self._size = contents.events, contents.head, contents.size
            if contents.torn:
                self._file.truncate(self._size)
            self._file.seek(self._size)
            sync_folder(path.parent)
        except OSError as error:
            self._file.close()
            if isinstance(error, RunBusy):
                raise
            raise RunWriteError(f"cannot write {path}: {error.strerror}") from error
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
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._undo()
            raise RunWriteError(
                f"cannot write {self.path}: {error.strerror or error}; all turns before are safe: make room, then go "
                f"on with `steer resume {self.path.parent}`"
            ) from error
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


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all.

    Raises:
        RunWriteError: the file system refused.
    """
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunWriteError(f"cannot write {path}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunBusy(f"{path} is being written by another process; wait for it, or stop it") from error
