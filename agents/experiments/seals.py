"""Seals: hashes by which a changed file of an experiment is known, and one that was put in another's place.

A sealed file ends with a line that holds the SHA-256 of its name, of the experiment's manifest and of all lines before.
So texts and numbers can neither be edited nor swapped between arms, nor come from another experiment. Whoever makes the
seals anew is not found: what was written is proved by writing it again.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from agents.errors import RunDamaged
from agents.experiments.folder import EXPERIMENT, MANIFEST, RESULTS, SAMPLES, write_files
from agents.log.chain import write_atomic
from steer.files import file_hash, read_plain

SEAL = "seal.json"  # of what is reported, by name
REPORTED = (MANIFEST, EXPERIMENT, RESULTS, SAMPLES)


def write_sealed(folder: Path, path: Path, content: str) -> None:
    """Write a file of an experiment with its seal, whole or not at all.

    Args:
        folder: of the experiment.
        path: of the file, below it.
        content: whole lines.

    Raises:
        RunWriteError: the file system refused.
    """
    write_atomic(path, content + json.dumps({"sha256": _digest(folder, path, content.encode())}) + "\n")


def read_sealed(folder: Path, path: Path) -> tuple[str, str]:
    """The content that was written to a file, and its hash.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not as it was written, or not UTF-8.
    """
    try:
        data = read_plain(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(error.strerror) from error
    end = data.rfind(b"\n", 0, len(data) - 1) + 1
    digest = _digest(folder, path, data[:end])
    if data[end:] != json.dumps({"sha256": digest}).encode() + b"\n":
        raise ValueError("its seal does not fit what it holds")
    return data[:end].decode(), digest


def seal_report(folder: Path, names: Iterable[str]) -> list[Path]:
    """Seal what the report is made of, by hashes in a file of their own.

    Raises:
        RunWriteError: the file system refused.
    """
    hashes = {name: file_hash(folder / name) for name in names}
    return write_files(folder, {SEAL: json.dumps(hashes, indent=2) + "\n"})


def check_report(folder: Path, names: Iterable[str]) -> None:
    """See that what a report is made of is as it was written.

    Raises:
        RunDamaged: it was changed, or the run has not come to its end.
    """
    advice = "give the `steer experiment` command of the run again, which makes it anew"
    try:
        hashes = json.loads(read_plain(folder / SEAL))
        changed = [name for name in names if hashes.get(name) != file_hash(folder / name)]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise RunDamaged(f"{folder / SEAL} holds no seal of a finished run ({error}); {advice}") from error
    if changed:
        raise RunDamaged(f"{folder / changed[0]} was changed since it was written; {advice}")


def _digest(folder: Path, path: Path, content: bytes) -> str:
    try:
        manifest = hashlib.sha256(read_plain(folder / MANIFEST)).hexdigest()
    except FileNotFoundError:
        manifest = ""
    return hashlib.sha256(f"{path.name} {manifest}\n".encode() + content).hexdigest()
