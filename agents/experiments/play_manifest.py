"""The folder of an experiment over scenarios, and what it was run with.

```
plays.json           settings and their hash, identity of the model, versions, revision of the source
plays.yaml           the file as it was read
runs/CELL/           the folder of a run
cells/CELL.json      what was measured of it, see `agents.experiments.play_cells`
claims/CELL          held by the process that works on it
samples.jsonl, results.json, table.md
report.html, report.md, told_by_role.png, nearness.png   where somebody asked for them
```
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pydantic

from agents.errors import RunDamaged, RunExists, RunWriteError
from agents.experiments.cells import claim
from agents.experiments.manifest import check_settings, provenance
from agents.experiments.play_spec import Plays
from agents.log import write_atomic

PLAYS, FILE, TABLE = "plays.json", "plays.yaml", "table.md"
RUNS, CELLS, CLAIMS = "runs", "cells", "claims"


class PlayManifest(pydantic.BaseModel):
    """What an experiment over scenarios was run with; the fields are those of `ExperimentManifest`, without pairs."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["plays"] = "plays"
    experiment: str
    experiment_sha256: str
    settings: dict[str, Any]
    model: dict[str, Any]
    versions: dict[str, str]
    platform: dict[str, str]
    revision: str | None
    started: str


def open_plays(plays: Plays, folder: Path, load_model: Callable[[], Any]) -> None:
    """Start a run in a folder, or find that the one in it is of the same experiment.

    Args:
        plays: the experiment.
        folder: made if need be.
        load_model: gives the `LatentModel`; called for a new run.

    Raises:
        RunExists: the folder holds something else.
        RunMismatch: it holds a run of another experiment, or of scenarios that were changed.
        RunDamaged: its manifest was changed.
        RunWriteError: the file system refused.
    """
    try:
        for name in (CLAIMS, CELLS, RUNS):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunWriteError(f"cannot write {folder}: {error.strerror}") from error
    with claim(folder / CLAIMS / "start", wait=True):
        if (folder / PLAYS).exists():
            check_settings(read_plays(folder).settings, plays.settings(), folder)
            return
        ours = {CLAIMS, CELLS, RUNS, FILE}
        if strangers := sorted(path.name for path in folder.iterdir() if path.name.removesuffix(".part") not in ours):
            raise RunExists(f"{folder} holds something else ({strangers[0]}); choose another --out")
        write_atomic(folder / FILE, plays.to_yaml())
        manifest = PlayManifest(**provenance(plays.id, plays.settings(), load_model()))
        write_atomic(folder / PLAYS, manifest.model_dump_json(indent=2) + "\n")  # last: where it is, all the rest is


def read_plays(folder: Path) -> PlayManifest:
    """Manifest of a run.

    Raises:
        RunDamaged: it was changed.
        OSError: there is none.
    """
    path = folder / PLAYS
    try:
        return PlayManifest.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise RunDamaged(f"{path} was changed: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
