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
from typing import Any, Literal, final

from agents.experiments.folder import CELLS, CLAIMS, check_empty, claim, make_folder, write_files
from agents.experiments.manifest import RunManifest, check_settings, provenance, read_manifest
from agents.experiments.play_cells import PlayCell
from agents.experiments.play_spec import Plays

PLAYS, FILE, RUNS = "plays.json", "plays.yaml", "runs"


@final
class PlayManifest(RunManifest):
    """What an experiment over scenarios was run with."""

    kind: Literal["plays"] = "plays"


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
    make_folder(folder, CLAIMS, CELLS, RUNS)
    with claim(folder / CLAIMS / "start", wait=True):
        if holds_plays(plays, folder):
            return
        check_empty(folder, {CLAIMS, CELLS, RUNS, FILE})
        manifest = PlayManifest(**provenance(plays.id, plays.settings(), load_model()))
        # The manifest last: where it is, all the rest is.
        write_files(folder, {FILE: plays.to_yaml(), PLAYS: manifest.to_json()})


def holds_plays(plays: Plays, folder: Path) -> bool:
    """Whether a run of this experiment was started in a folder.

    Raises:
        RunMismatch, RunDamaged: see `open_plays`.
    """
    if not (folder / PLAYS).exists():
        return False
    check_settings(read_plays(folder).settings, plays.settings(), folder)
    return True


def read_plays(folder: Path) -> PlayManifest:
    """Manifest of a run.

    Raises:
        RunDamaged: it was changed.
        OSError: there is none.
    """
    return read_manifest(folder / PLAYS, PlayManifest, "was changed")


def cell_file(folder: Path, cell: PlayCell) -> Path:
    """Where what was measured of a cell lies in the folder of a run."""
    return folder / CELLS / f"{cell.key}.json"
