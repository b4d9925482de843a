"""Each kind of damage on each kind of file: told, or healed; what is answered is right."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agents.errors import AgentsError
from agents.scenarios.schema import Scenario
from agents.simulation.audit import audit_run
from agents.simulation.simulation import run_scenario
from steer.errors import SteerError
from steer.models.latent_model import LatentModel
from tests.vectorstore.conftest import DIM, random_records
from vectorstore import Record, VectorStore, VectorStoreError

pytestmark = pytest.mark.torture

Damage = Callable[[Path, random.Random], None]
PAGE = 4096


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def swap(path: Path, chance: random.Random) -> None:
    """Two pages, or two halves of a small file, change places."""
    data = path.read_bytes()
    size = PAGE if len(data) >= 2 * PAGE else len(data) // 2
    a, b = sorted(chance.sample(range(len(data) // size), 2))
    cut = [data[i : i + size] for i in range(0, len(data), size)]
    cut[a], cut[b] = cut[b], cut[a]
    path.write_bytes(b"".join(cut))


def zero(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data)) // PAGE * PAGE
    data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))
    path.write_bytes(data)


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def missing(path: Path, chance: random.Random) -> None:
    path.unlink()


def link(path: Path, chance: random.Random) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGES: tuple[Damage, ...] = (flip, truncate, swap, zero, empty, missing, link)
TIMES: dict[Damage, int] = {flip: 40, truncate: 10, swap: 20, zero: 20}


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record], list[list[str]]]:
    """A store with an index, its records, and the ids that searches find."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    with VectorStore.open(folder, encoder="e", dim=DIM, indexed=("i",)) as store:
        store.add(random_records(np.random.default_rng(7), 400))
        store.rebuild()
        records = {record.id: record for record in store.records()}
        return folder, records, answers(store)


def answers(store: VectorStore) -> list[list[str]]:
    queries = np.random.default_rng(8).normal(size=(20, DIM)).astype(np.float32)
    return [[hit.record.id for hit in store.search(query, 5)] for query in queries]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["records.sqlite", "index"])
@pytest.mark.parametrize("mmap", [False, True])
def test_stores(
    stored: tuple[Path, dict[str, Record], list[list[str]]],
    tmp_path: Path,
    damage: Damage,
    file: str,
    mmap: bool,
    share: float,
) -> None:
    whole, records, expected = stored
    for seed in range(max(1, int(TIMES.get(damage, 1) * share))):
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        path = next(folder.glob("index-*")) if file == "index" else folder / file
        damage(path, random.Random(f"{seed} {file} {mmap}"))
        told = False
        try:
            with VectorStore.open(folder, readonly=True, mmap=mmap) as store:
                assert answers(store) == expected
                assert {record.id: record for record in store.records()} == records
                told = bool(store.verify())
        except VectorStoreError:
            told = True
        if damage in (missing, link) and file == "records.sqlite":
            continue
        if damage is link:
            (folder / "elsewhere").rename(path)
        try:
            report = VectorStore.repair(folder)
        except VectorStoreError as error:
            assert told and re.search("not even its meta table|another program|no store at", str(error)), error
            continue
        assert bool(report.problems) == told or damage is link
        with VectorStore.open(folder) as store:
            saved = {record.id: record for record in store.records()}
            assert all(records[id] == record for id, record in saved.items())
            assert len(saved) == 400 - (report.lost or 0) or damage in (truncate, zero, swap, empty)
            if damage is flip:  # one row at most, or a page that leads nowhere
                assert len(saved) >= 399
            assert store.verify() == []


@pytest.fixture(scope="session")
def played(scenario: Scenario, model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_scenario(scenario, model, tmp_path_factory.mktemp("runs") / "run", turns=2).path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name",
    ["manifest.json", "scenario.yaml", "events.jsonl", "unguided.jsonl", "transcript.md", "store/records.sqlite"],
)
def test_runs(played: Path, model: LatentModel, tmp_path: Path, name: str, damage: Damage, share: float) -> None:
    """The audit tells, but for what says nothing: spaces, times and machines in the manifest, a scenario's comments."""
    for seed in range(max(1, int(TIMES.get(damage, 1) * share / 2))):
        run = tmp_path / str(seed)
        shutil.copytree(played, run)
        damage(run / name, random.Random(f"{seed} {name}"))
        try:
            ok = audit_run(run, model=model).ok
        except AgentsError:
            ok = False
        unsaid = name in ("manifest.json", "scenario.yaml") and damage in (flip, swap, zero)
        unsaid |= name == "store/records.sqlite" and damage in (flip, swap, zero, truncate)  # where no goal lies
        assert not ok or unsaid, f"{damage.__name__} {seed}"


@pytest.fixture(scope="session")
def saved(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["heads.safetensors", "encoder/adapter_model.safetensors", "steer_config.json"])
def test_models(saved: Path, model: LatentModel, tmp_path: Path, name: str, damage: Damage, share: float) -> None:
    for seed in range(max(1, int(TIMES.get(damage, 1) * share / 4))):
        folder = tmp_path / str(seed)
        shutil.copytree(saved, folder)
        damage(folder / name, random.Random(f"{seed} {name}"))
        if damage is link:
            assert (folder / name).is_symlink()  # within the folder it may be one
            continue
        if name.endswith(".json") and damage in (flip, swap, zero):
            continue  # settings have no checksum: what they may be is checked
        with pytest.raises(SteerError):
            LatentModel.from_pretrained(str(folder))
