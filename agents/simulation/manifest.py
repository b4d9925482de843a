"""The folder of a run, and its manifest: what it was made with, so that it can be resumed and repeated.

```
manifest.json      model identity, versions, seed, hash of the scenario; times; hashes of the finished logs
scenario.yaml      the scenario as it was run, defaults and overrides included
store/             latents of goals and voices
events.jsonl       the log of the guided arm
unguided.jsonl     the same scenario and seed without any pull
timings.jsonl      seconds of each turn (the logs know no clock)
transcript.md      for reading, made from the logs
```
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch

from agents.errors import RunDamaged, RunMismatch, RunNotFound, RunWriteError
from agents.log.chain import read_log, write_atomic
from agents.scenarios.loading import load_scenario
from agents.scenarios.schema import Scenario
from agents.simulation.reached import thresholds
from steer.files import check_folder, file_hash, open_plain, read_plain, write_all
from steer.models.latent_model import LatentModel

Arm = Literal["guided", "unguided"]

LOGS: Mapping[Arm, str] = {"guided": "events.jsonl", "unguided": "unguided.jsonl"}
MANIFEST = "manifest.json"
SCENARIO = "scenario.yaml"
STORE = "store"
TIMINGS = "timings.jsonl"
TRANSCRIPT = "transcript.md"
PACKAGES = ("steer", "torch", "transformers", "peft", "numpy", "faiss-cpu")


class Manifest(pydantic.BaseModel):
    """What a run was made with.

    Attributes:
        scenario, scenario_sha256: id and hash of the scenario as it was run.
        seed, turns: of it.
        arms: which logs belong to the run.
        threshold, told: similarity from which a goal counts as reached, and probability that it was told, which it must
            have as well where that is not None.
        model: see `model_identity`.
        versions, platform: of packages and the machine, for whoever repeats the run.
        started, finished: UTC, ISO 8601; `finished` is None until all arms are complete.
        logs: SHA-256 of the finished log files.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    scenario: str
    scenario_sha256: str
    seed: int
    turns: int
    arms: tuple[Arm, ...]
    index: str | None = None
    threshold: float
    told: float | None = None
    model: dict[str, Any]
    versions: dict[str, str]
    platform: dict[str, str]
    started: str
    finished: str | None = None
    logs: dict[str, str] = {}

    @pydantic.field_validator("arms")
    @classmethod
    def _check_arms(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        if arms not in (("guided",), ("guided", "unguided")):
            raise ValueError("expected guided, or guided and unguided")
        return arms

    @pydantic.field_validator("logs")
    @classmethod
    def _check_logs(cls, logs: dict[str, str]) -> dict[str, str]:
        if not logs.keys() <= set(LOGS.values()):
            raise ValueError(f"expected hashes of {' and '.join(LOGS.values())} alone")
        return logs

    def save(self, run: Path) -> None:
        """Write `manifest.json`, whole or not at all.

        Raises:
            RunWriteError: the file system refused.
        """
        write_atomic(run / MANIFEST, self.model_dump_json(indent=2) + "\n")

    def seal(self, run: Path) -> "Manifest":
        """Record that the run is finished, with the hashes of its logs."""
        logs = {LOGS[arm]: file_hash(run / LOGS[arm]) for arm in self.arms}
        sealed = self.model_copy(update={"finished": utc_now(), "logs": logs})
        sealed.save(run)
        return sealed

    def changed_logs(self, run: Path) -> list[str]:
        """Names of finished logs that are not as they were when the run ended."""
        paths = {run / name: expected for name, expected in self.logs.items()}
        return [path.name for path, expected in paths.items() if not path.exists() or file_hash(path) != expected]


def make_manifest(
    scenario: Scenario, model: LatentModel, arms: tuple[Arm, ...], *, index: str | None = None
) -> Manifest:
    """The manifest of a run that is about to start; `index` is the identity of the passages that it plans by.

    What counts as reached is told by `steer`'s calibration, see `agents.simulation.reached`.
    """
    threshold, told = thresholds(scenario, model)
    return Manifest(
        scenario=scenario.id,
        scenario_sha256=scenario.sha256(),
        seed=scenario.seed,
        turns=scenario.turns,
        arms=arms,
        index=index,
        threshold=threshold,
        told=told,
        model=model_identity(model),
        versions=versions_here(),
        platform=platform_of(model),
        started=utc_now(),
    )


def read_manifest(run: Path) -> Manifest:
    """Read the manifest of a run, whose folder must hold nothing but plain files and folders.

    Raises:
        RunNotFound: the folder holds no run.
        RunDamaged: the manifest was changed, or comes from another version; or a link or a device lies in the folder.
    """
    path = run / MANIFEST
    try:
        check_folder(run)
    except OSError as error:
        raise RunDamaged(f"{error.filename}: {error.strerror}") from error
    try:
        text = read_plain(path).decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "; it was stopped before it began: delete the folder and run again" if (run / STORE).exists() else ""
        raise RunNotFound(f"{run} holds no run: there is no {MANIFEST}{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunDamaged(f"cannot read {path}: {error}") from error
    try:
        return Manifest.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise RunDamaged(f"{path} was changed: {'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}") from error


def read_scenario(run: Path, manifest: Manifest) -> Scenario:
    """The scenario as it was run.

    Raises:
        RunMismatch: it is not the one that the run was started with.
        ScenarioError: it cannot be read.
    """
    scenario = load_scenario(run / SCENARIO)
    if scenario.sha256() != manifest.scenario_sha256:
        raise RunMismatch(
            f"{run / SCENARIO} was changed since the run was started; put it back, or start a new run with it"
        )
    return scenario


def model_identity(model: LatentModel) -> dict[str, Any]:
    """What must agree for a turn to come out the same: settings, weights, base, type and device.

    Weights are identified by the hashes of their files; a model that was never saved, by a hash of adapters and heads.
    """
    config = model.latent_config
    names = ("name", "encoder_id", "layout", "span_tokens", "z_dim", "soft_tokens", "max_context", "prefix_space")
    return {
        **{name: getattr(config, name) for name in names},
        "base": config.base.model_dump(mode="json", exclude={"name"}),
        "files": dict(config.files),
        "weights": None if config.files else _weights_hash(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "fused": bool(model.fuse),
    }


def check_model(manifest: Manifest, model: LatentModel) -> None:
    """Compare a model with the one that a run was made with.

    Raises:
        RunMismatch: they differ; says in what.
    """
    found = json.loads(json.dumps(model_identity(model)))
    for key in sorted(found.keys() | manifest.model.keys()):
        if found.get(key) != manifest.model.get(key):
            raise RunMismatch(
                f"the run was made with another model: {key} was {manifest.model.get(key)!r}, now it is "
                f"{found.get(key)!r}; give the model {manifest.model.get('name')!r} as it was then"
            )


def logs_of(run: Path, manifest: Manifest) -> dict[Arm, Any]:
    """Contents of all logs of a run (`LogContents` by arm).

    Raises:
        RunDamaged: see `read_log`.
    """
    return {arm: read_log(run / LOGS[arm]) for arm in manifest.arms}


def add_timing(run: Path, arm: Arm, turn: int, seconds: float) -> None:
    """Note the seconds of a turn.

    Raises:
        RunWriteError: the file system refused.
    """
    line = json.dumps({"arm": arm, "turn": turn, "seconds": round(seconds, 3), "at": utc_now()})
    try:
        with open_plain(run / TIMINGS, "ab") as file:
            write_all(file, line.encode() + b"\n")
    except OSError as error:
        raise RunWriteError(f"cannot write {run / TIMINGS}: {error.strerror}") from error


def total_seconds(run: Path) -> float:
    """Seconds of all turns of a run that were noted; lines cut short by a crash do not count."""
    try:
        lines = read_plain(run / TIMINGS).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return 0.0
    total = 0.0
    for line in lines:
        try:
            total += float(json.loads(line)["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
    return total


def versions_here() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is written; `unknown` where one is not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def platform_of(model: LatentModel) -> dict[str, str]:
    """System, machine, threads, and the device that a model is on."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type,
        "threads": str(torch.get_num_threads()),
    }


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _weights_hash(model: LatentModel) -> str:
    digest = hashlib.sha256()
    adapters = {n: p for n, p in model.peft.named_parameters() if "lora_" in n}
    for name, tensor in sorted({**adapters, **dict(model.head.named_parameters(prefix="head"))}.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
