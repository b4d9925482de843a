"""The audit passes what was played, and finds every change."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agents.errors import RunDamaged, RunNotFound
from agents.log.chain import FIRST, read_log
from agents.log.events import Event
from agents.scenarios.schema import Scenario
from agents.simulation.audit import AuditReport, audit_run
from agents.simulation.simulation import run_scenario
from steer.models.latent_model import LatentModel
from tests.agents.conftest import tiny_model
from vectorstore import NewRecord, VectorStore


@pytest.fixture(scope="module")
def played(scenario: Scenario, model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_scenario(scenario, model, tmp_path_factory.mktemp("runs") / "played").path


@pytest.fixture
def run(played: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(played, tmp_path / "run")
    return tmp_path / "run"


def failed(report: AuditReport) -> dict[str, str]:
    assert report.ok == (not [check for check in report.checks if not check.ok])
    return {check.name: check.detail for check in report.checks if not check.ok}


def rewrite(run: Path, change: Any, *, name: str = "events.jsonl") -> None:
    """Change the events of a log and forge all that follows: the chain, and the seal in the manifest."""
    import hashlib

    rows = [json.loads(line) for line in (run / name).read_bytes().split(b"\n")[:-1]]
    change(rows)
    head, data = FIRST, b""
    for row in rows:
        line = json.dumps(row | {"prev": head}, ensure_ascii=False).encode() + b"\n"
        head, data = hashlib.sha256(line).hexdigest(), data + line
    (run / name).write_bytes(data)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["logs"][name] = hashlib.sha256(data).hexdigest()
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_run_passes(played: Path, model: LatentModel) -> None:
    report = audit_run(played, model=model, replay=True)
    assert not failed(report)
    assert len(report.checks) == 3 + 2 * 6
    assert not failed(audit_run(played))


def test_any_changed_byte_is_found(run: Path) -> None:
    for name in ("events.jsonl", "unguided.jsonl"):
        whole = (run / name).read_bytes()
        for place in range(0, len(whole), 113):
            changed = bytearray(whole)
            changed[place] ^= 1
            (run / name).write_bytes(changed)
            assert not audit_run(run).ok, f"byte {place} of {name}"
        (run / name).write_bytes(whole)
    assert audit_run(run).ok


def test_a_goal_in_the_ids_is_found_however_well_forged(run: Path, model: LatentModel) -> None:
    """Someone who fed a goal would have to hide it: in ids, hashes of contexts, chain and seal."""
    secret = model.to_ids("Cake!")

    def plant(rows: list[Any]) -> None:
        rows[0]["ids"] = secret + rows[0]["ids"]

    rewrite(run, plant)
    assert "turn 1" in failed(audit_run(run))["guided: context"]
    assert "opening's tokens" in failed(audit_run(run, model=model))["guided: text"]


@pytest.mark.parametrize("turn", [1, 4])
@pytest.mark.parametrize("field", ["ids", "cue_ids", "context_sha256", "context_tokens"])
def test_changed_contexts_are_found_behind_a_forged_chain(run: Path, field: str, turn: int) -> None:
    def change(rows: list[Any]) -> None:
        row = next(row for row in rows if row["type"] == "turn" and row["turn"] == turn)
        if isinstance(row[field], list):
            row[field][-1] ^= 1
        else:
            row[field] = row[field] + 1 if isinstance(row[field], int) else row[field][::-1]

    rewrite(run, change)
    problems = failed(audit_run(run))
    assert "guided: context" in problems
    assert "guided: chain" not in problems and "seal" not in problems


def test_changed_texts_seeds_and_outcomes_are_found(run: Path, played: Path, model: LatentModel) -> None:
    def retell(rows: list[Any]) -> None:
        rows[1]["text"] = " won."

    rewrite(run, retell)
    assert "turn 1" in failed(audit_run(run, model=model))["guided: text"]

    def reseed(rows: list[Any]) -> None:
        rows[1]["text"] = json.loads((played / "events.jsonl").read_text().splitlines()[1])["text"]
        rows[1]["seed"] += 1

    rewrite(run, reseed)
    assert not failed(audit_run(run, model=model))
    assert failed(audit_run(run, model=model, replay=True)) == {
        "guided: store": "turn 1: written again it differs in seed"
    }

    def reward(rows: list[Any]) -> None:
        rows[1]["seed"] -= 1
        row = next(row for row in rows if row["type"] == "goal")
        row["outcome"] = "reached"

    rewrite(run, reward)
    assert "does not follow" in failed(audit_run(run))["guided: order"]


def test_a_replay_finds_other_words(run: Path, model: LatentModel) -> None:
    """A forged turn whose hashes all fit is still not what the model writes."""
    rewrite(run, lambda rows: rows.__delitem__(slice(2, None)))
    manifest = json.loads((run / "manifest.json").read_text()) | {"finished": None, "logs": {}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "unguided.jsonl").unlink()
    assert not failed(audit_run(run, model=model, replay=True))

    def forge(rows: list[Any]) -> None:
        from agents.log.events import hash_ids

        rows[1]["ids"] = model.to_ids(" won.")
        rows[1]["text"] = " won."
        visible = rows[0]["ids"] + rows[1]["cue_ids"] + rows[1]["ids"]
        rows[1] |= {"visible_tokens": len(visible), "visible_sha256": hash_ids(visible)}

    rewrite(run, forge)
    manifest["logs"] = {}
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert not failed(audit_run(run, model=model))
    assert "differs in text, ids" in failed(audit_run(run, model=model, replay=True))["guided: store"]


def test_goals_in_cues_are_found(run: Path) -> None:
    def whisper(rows: list[Any]) -> None:
        rows[1]["cue"] = "\n\nAnn (a boat)"

    rewrite(run, whisper)
    assert "is not the scenario's" in failed(audit_run(run))["guided: goals unseen"]


def test_changed_goals_models_and_scenarios_are_found(run: Path, model: LatentModel, tiny_llama: Path) -> None:
    assert "encoder_id" in failed(audit_run(run, model=tiny_model(tiny_llama, seed=1)))["model"]
    with VectorStore.open(run / "store") as store:
        record = store.get("bob/eat")
        store.delete("bob/eat")
        new = NewRecord(id=record.id, owner="bob", kind="terminal", text=record.text, vector=-record.vector)
        store.add(new)
    assert "opening event" in failed(audit_run(run, model=model))["guided: store"]
    shutil.rmtree(run / "store")
    assert "no store" in failed(audit_run(run, model=model))["guided: store"]
    (run / "scenario.yaml").write_text("id: x\n")
    assert failed(audit_run(run)).keys() == {"scenario"}


def test_missing_logs_are_found(run: Path) -> None:
    (run / "unguided.jsonl").unlink()
    problems = failed(audit_run(run))
    assert "unguided.jsonl" in problems["seal"]


def test_a_stopped_run_passes(scenario: Scenario, model: LatentModel, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event, arm: str) -> None:
        if event.type == "turn":
            raise Stop

    with pytest.raises(Stop):
        run_scenario(scenario, model, tmp_path / "run", on_event=stop)
    with (tmp_path / "run" / "events.jsonl").open("ab") as file:
        file.write(b'{"prev":"12')
    report = audit_run(tmp_path / "run", model=model, replay=True)
    assert not failed(report)
    details = " ".join(check.detail for check in report.checks)
    assert "11 bytes of a half-written line are ignored" in details and "not finished" in details
    assert len(read_log(tmp_path / "run" / "events.jsonl").events) == 2


def test_what_is_no_run(tmp_path: Path, run: Path) -> None:
    with pytest.raises(RunNotFound, match="holds no run"):
        audit_run(tmp_path)
    with pytest.raises(ValueError, match="needs the model"):
        audit_run(run, replay=True)
    (run / "manifest.json").write_text("{}")
    with pytest.raises(RunDamaged, match=r"manifest\.json was changed: scenario"):
        audit_run(run)
