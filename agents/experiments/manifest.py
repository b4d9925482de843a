"""What an experiment was run with: settings, items, model and versions, so that it can be continued and repeated."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, final

import pydantic

from agents.errors import RunDamaged, RunMismatch
from agents.experiments.folder import CELLS, CLAIMS, EXPERIMENT, MANIFEST, check_empty, check_plain, write_files
from agents.experiments.kind import Kind
from agents.experiments.spec import Experiment
from agents.simulation.manifest import model_identity, platform_of, utc_now, versions_here
from steer.files import read_plain
from steer.models.latent_model import LatentModel
from steer.records import differences, first_error

K = TypeVar("K", bound=Kind[Any])


@final
class Manifest(pydantic.BaseModel):
    """What an experiment was run with.

    Attributes:
        kind: what it is over.
        experiment, experiment_sha256: its id, and the hash of `settings`.
        settings: all that decides what is written.
        files: hashes of what the folder keeps of the items, by name.
        model: see `agents.simulation.manifest.model_identity`.
        versions, platform, revision: of packages, machine and source, for whoever repeats the run; `revision` is None
            outside a repository, and ends with `+` where files were changed since.
        started: UTC, ISO 8601.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    kind: str
    experiment: str
    experiment_sha256: str
    settings: dict[str, Any]
    files: dict[str, str]
    model: dict[str, Any]
    versions: dict[str, str]
    platform: dict[str, str]
    revision: str | None
    started: str

    def to_json(self) -> str:
        """As a JSON document."""
        return self.model_dump_json(indent=2) + "\n"


def start_run(folder: Path, kind: Kind[Any], model: LatentModel) -> None:
    """Write the manifest, the experiment and its items into the folder of a new run.

    Raises:
        RunExists: the folder holds something else.
        RunWriteError: the file system refused.
    """
    files, settings = kind.files(), kind.settings()
    check_empty(folder, {EXPERIMENT, MANIFEST, CELLS, CLAIMS, *files})
    manifest = Manifest(
        kind=kind.name,
        experiment=kind.experiment.id,
        experiment_sha256=_hash(json.dumps(settings, sort_keys=True)),
        settings=settings,
        files={name: _hash(text) for name, text in files.items()},
        model=model_identity(model),
        versions=versions_here(),
        platform=platform_of(model),
        revision=_revision(),
        started=utc_now(),
    )
    # The manifest last: where it is, all the rest is.
    write_files(folder, {**files, EXPERIMENT: kind.experiment.to_yaml(), MANIFEST: manifest.to_json()})


def existing_run(kind: type[K], experiment: Experiment, folder: Path) -> K | None:
    """The kind, with the items of a run of this experiment that was started in a folder; None where none was.

    Raises:
        RunMismatch: it is a run of another experiment; says in what they differ.
        RunDamaged: its files were changed.
    """
    if not (folder / MANIFEST).exists():
        return None
    manifest = read_manifest(folder)
    if manifest.experiment_sha256 != _hash(json.dumps(manifest.settings, sort_keys=True)):
        raise RunDamaged(f"the settings in {folder / MANIFEST} were changed since the run was started; put it back")
    for name, expected in manifest.files.items():
        if _content_hash(folder, name) != expected:
            raise RunDamaged(f"{folder / name} was changed since the run was started; put it back, or start a new run")
    if manifest.kind != kind.name:
        raise RunMismatch(f"{folder} holds a run over {manifest.kind}, not {kind.name}; choose another --out")
    found = kind.read(experiment, folder)
    check_settings(manifest.settings, found.settings(), folder)
    return found


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run.

    Raises:
        RunDamaged: it was changed, or a link or a device lies in the folder.
        OSError: there is none.
    """
    path = folder / MANIFEST
    check_plain(folder)
    try:
        return Manifest.model_validate_json(read_plain(path))
    except pydantic.ValidationError as error:
        raise RunDamaged(f"{path} is no experiment's: {first_error(error)}") from error


def check_settings(was: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    """Compare the settings that a run was started with, `was`, with those of an experiment now.

    Raises:
        RunMismatch: they differ; says in what.
    """
    # Names first: of an arm that is gone they say more than its other keys.
    if differ := sorted(differences(was, settings), key=lambda item: (not item[0].endswith(".name"), item[0])):
        shown = "; ".join(said for _, said in differ[:3])
        more = f" (and {len(differ) - 3} more)" if len(differ) > 3 else ""
        raise RunMismatch(f"{folder} holds a run of another experiment: {shown}{more}; choose another --out")


def check_model(was: Mapping[str, Any], model: LatentModel) -> None:
    """Compare a model with the one that a run was started with, `was` (a `model_identity`).

    Raises:
        RunMismatch: they differ; says in what.
    """
    for _, said in differences(was, json.loads(json.dumps(model_identity(model)))):
        raise RunMismatch(
            f"the run was made with another model: {said}; give the model {was.get('name')!r} as it was then, or "
            "choose another --out"
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _content_hash(folder: Path, name: str) -> str | None:
    """Hash of a file in a folder; None where there is none of that name."""
    if Path(name).name != name:
        return None
    try:
        return hashlib.sha256(read_plain(folder / name)).hexdigest()
    except OSError:
        return None


def _revision() -> str | None:
    """The revision of the source tree that this package runs from; None where it is installed, or git is not there."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    answers = []
    for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            git = ["git", "--no-optional-locks", "-C", str(root), *command]
            run = subprocess.run(git, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if run.returncode:
            return None
        answers.append(run.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")
