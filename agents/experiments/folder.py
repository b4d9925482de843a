"""The folder of a run: what lies in it, files that are there whole or not at all, and claims.

```
experiment.json      settings and their hash, identity of the model, versions, revision of the source
experiment.yaml      the file as it was read
pairs.jsonl          of pairs: all of them
runs/CELL/           of scenarios: the folders of their runs
cells/, claims/      what is done, cell by cell; what a process works on
samples.jsonl        all that was written, with its measures, when the run is complete; samples.parquet with pyarrow
results.json, table.md, and figures; seal.json holds their hashes
report.html, report.md   where somebody asked for them
```

A claim is a lock of the operating system on its file, so a process that dies, however it dies, lets go of its cell at
that moment: there are no stale claims to recover, and the next process takes the file over.
"""

import dataclasses
import io
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from agents.errors import RunDamaged, RunExists, RunWriteError
from agents.log.chain import write_atomic
from steer.files import check_folder, lock

MANIFEST, EXPERIMENT = "experiment.json", "experiment.yaml"
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


def sample_files(rows: Sequence[Mapping[str, Any]]) -> dict[str, str | bytes]:
    """All that was written as `samples.jsonl`, and as `samples.parquet` where pyarrow is installed."""
    files: dict[str, str | bytes] = {SAMPLES: json_lines(map(plain_json, rows))}
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return files
    # One column per measure; `details` differs from method to method, so it stays JSON.
    flat = [
        {key: value for key, value in row.items() if key not in ("measures", "details")}
        | ({"details": json.dumps(plain_json(row["details"]), ensure_ascii=False)} if "details" in row else {})
        | plain_json(row["measures"])
        for row in rows
    ]
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), content)
    return files | {"samples.parquet": content.getvalue()}


def plain_json(value: Any) -> Any:
    """A value that JSON can hold: what is not finite becomes null, sequences become lists, dataclasses objects."""
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value


@contextmanager
def claim(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Claim what a file stands for: gives True if this process has it now, False if another one does.

    Args:
        path: of the claim's file; see `steer.files.lock`.
        wait: until the other one lets go.

    Raises:
        RunWriteError: the file cannot be written, or its file system knows no locks.
    """
    with ExitStack() as held:
        try:
            mine = held.enter_context(lock(path, wait=wait))
        except OSError as error:
            raise RunWriteError(
                f"cannot lock {path}: {error.strerror or error}; use a folder on a local disk"
            ) from error
        yield mine


def check_plain(folder: Path) -> None:
    """See that the folder of a run holds nothing but plain files and folders: no links, pipes or devices.

    Raises:
        RunDamaged: it does.
    """
    try:
        check_folder(folder)
    except OSError as error:
        raise RunDamaged(f"{error.filename}: {error.strerror}") from error
