"""What an experiment was run with: settings, pairs, model and versions, so that it can be continued and repeated.

```
experiment.json      settings and their hash, identity of the model, versions, revision of the source
experiment.yaml      the file as it was read
pairs.jsonl          all pairs
cells/, claims/      see `agents.experiments.cells`
samples.jsonl        all samples with their measures, when the run is complete; also samples.parquet, with pyarrow
results.json, table.md, success_by_budget.png, frontier.png
report.html, report.md   where somebody asked for them
```
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, final

import pydantic

from agents.errors import RunDamaged, RunMismatch
from agents.experiments.folder import CELLS, CLAIMS, check_empty, write_files
from agents.experiments.pairs import pairs_text, read_pairs, source_identity
from agents.experiments.spec import Experiment
from agents.simulation.manifest import model_identity, platform_of, utc_now, versions_here
from steer.data.pairs import Pair

MANIFEST, EXPERIMENT, PAIRS = "experiment.json", "experiment.yaml", "pairs.jsonl"


class RunManifest(pydantic.BaseModel):
    """What an experiment of either kind was run with.

    Attributes:
        experiment, experiment_sha256: its id, and the hash of `settings`.
        settings: all that decides what is written.
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
    model: dict[str, Any]
    versions: dict[str, str]
    platform: dict[str, str]
    revision: str | None
    started: str

    def to_json(self) -> str:
        """As a JSON document."""
        return self.model_dump_json(indent=2) + "\n"


M = TypeVar("M", bound=RunManifest)


@final
class ExperimentManifest(RunManifest):
    """What an experiment was run with.

    Attributes:
        pairs_sha256: hash of `pairs.jsonl`.
    """

    kind: Literal["experiment"] = "experiment"
    pairs_sha256: str


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """All that decides what is written, the content of the source of pairs included; plain JSON.

    Raises:
        ExperimentError: that source is not there.
    """
    return experiment.settings() | {"pairs": source_identity(experiment.pairs)}


def provenance(experiment: str, settings: dict[str, Any], model: Any) -> dict[str, Any]:
    """What every manifest of an experiment says: its id, settings and their hash, model, versions, machine, time."""
    return {
        "experiment": experiment,
        "experiment_sha256": _hash(json.dumps(settings, sort_keys=True)),
        "settings": settings,
        "model": model_identity(model),
        "versions": versions_here(),
        "platform": platform_of(model),
        "revision": _revision(),
        "started": utc_now(),
    }


def start_run(folder: Path, experiment: Experiment, model: Any, pairs: list[Pair]) -> None:
    """Write the manifest, the experiment and its pairs into the folder of a new run.

    Raises:
        RunExists: the folder holds something else.
        RunWriteError: the file system refused.
    """
    check_empty(folder, {EXPERIMENT, PAIRS, CELLS, CLAIMS})
    text = pairs_text(pairs)
    common = provenance(experiment.id, settings_of(experiment), model)
    manifest = ExperimentManifest(pairs_sha256=_hash(text), **common)
    # The manifest last: where it is, all the rest is.
    write_files(folder, {PAIRS: text, EXPERIMENT: experiment.to_yaml(), MANIFEST: manifest.to_json()})


def read_run(folder: Path) -> tuple[ExperimentManifest, list[Pair]]:
    """Manifest and pairs of a run.

    Raises:
        RunDamaged: one of them was changed.
        OSError: there is no manifest.
    """
    manifest = read_manifest(folder / MANIFEST, ExperimentManifest, "is no experiment's")
    pairs = read_pairs(folder / PAIRS)
    if _hash(pairs_text(pairs)) != manifest.pairs_sha256:
        raise RunDamaged(f"{folder / PAIRS} was changed since the run was started; put it back, or start a new run")
    return manifest, pairs


def read_manifest(path: Path, kind: type[M], wrong: str) -> M:
    """Read what `to_json` gave.

    Args:
        path: of the file.
        kind: of manifest.
        wrong: what to say of a file that holds something else.

    Raises:
        RunDamaged: it does.
        OSError: there is no such file.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise RunDamaged(f"{path} {wrong}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def check_settings(was: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    """Compare the settings that a run was started with, `was`, with those of an experiment now.

    Raises:
        RunMismatch: they differ; says in what.
    """
    then, now = dict(_flat(was)), dict(_flat(settings))
    # Names first: of an arm that is gone they say more than its other keys.
    keys = sorted(then.keys() | now.keys(), key=lambda key: (not key.endswith(".name"), key))
    if differ := [key for key in keys if then.get(key) != now.get(key)]:
        shown = "; ".join(f"{key} was {_show(then, key)}, now it is {_show(now, key)}" for key in differ[:3])
        more = f" (and {len(differ) - 3} more)" if len(differ) > 3 else ""
        raise RunMismatch(f"{folder} holds a run of another experiment: {shown}{more}; choose another --out")


def check_model(was: Mapping[str, Any], model: Any) -> None:
    """Compare a model with the one that a run was started with, `was` (a `model_identity`).

    Raises:
        RunMismatch: they differ; says in what.
    """
    then, now = dict(_flat(was)), dict(_flat(json.loads(json.dumps(model_identity(model)))))
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            raise RunMismatch(
                f"the run was made with another model: {key} was {_show(then, key)}, now it is {_show(now, key)}; give "
                f"the model {was.get('name')!r} as it was then, or choose another --out"
            )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested JSON by dotted names."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}.{index}")
    else:
        yield prefix, value


def _show(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key])[:60] if key in flat else "not there"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
