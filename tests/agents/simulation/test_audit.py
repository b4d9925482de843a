"""The audit passes what was played, and finds every change."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.errors import RunDamaged, RunNotFound
from agents.log.chain import FIRST, read_log
from agents.log.events import Event
from agents.plots.progress import figure_problem, plot_progress
from agents.scenarios.schema import Scenario
from agents.simulation.audit import AuditReport, audit_run
from agents.simulation.simulation import run_scenario
from agents.simulation.transcript import render_transcript
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
    rows = [json.loads(line) for line in (run / name).read_bytes().split(b"\n")[:-1]]
    change(rows)
    head, data = FIRST, b""
    for row in rows:
        line = json.dumps(row | {"prev": head}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        head, data = hashlib.sha256(line).hexdigest(), data + line
    (run / name).write_bytes(data)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["logs"][name] = hashlib.sha256(data).hexdigest()
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_run_passes(played: Path, model: LatentModel) -> None:
    report = audit_run(played, model=model, replay=True)
    assert not failed(report)
    assert len(report.checks) == 7 + 2 * 7
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
    assert failed(audit_run(run)) == {"guided: order": "turn 1: its seed does not follow from the scenario's"}
    assert failed(audit_run(run, model=model, replay=True))["guided: store"] == (
        "turn 1: written again it differs in seed"
    )

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
    (run / "transcript.md").unlink()
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


def edit_manifest(run: Path, **fields: object) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | fields))


def test_arms_that_were_left_out_are_missed(run: Path) -> None:
    with pytest.raises(RunDamaged, match="arms: .*expected guided, or guided and unguided"):
        edit_manifest(run, arms=[], logs={})
        audit_run(run)
    logs = {"events.jsonl": hashlib.sha256((run / "events.jsonl").read_bytes()).hexdigest()}
    edit_manifest(run, arms=["guided"], logs=logs)
    assert "there is unguided.jsonl" in failed(audit_run(run))["manifest"]
    (run / "unguided.jsonl").unlink()
    (run / "transcript.md").write_text(render_transcript(run))
    assert failed(audit_run(run)) == {
        "guided: opening": "arms is ('guided', 'unguided'), expected ('guided',)",
    }


def test_a_run_without_a_baseline_passes_and_says_so(scenario: Scenario, model: LatentModel, tmp_path: Path) -> None:
    run = run_scenario(scenario, model, tmp_path / "run", turns=1, baseline=False).path
    report = audit_run(run, model=model)
    assert not failed(report)
    assert "no baseline" in {check.detail for check in report.checks}


@pytest.mark.parametrize("name", ["events.jsonl", "unguided.jsonl"])
def test_emptied_and_shortened_logs_are_found(run: Path, name: str) -> None:
    edit_manifest(run, finished=None, logs={})
    (run / "transcript.md").unlink()
    assert not failed(audit_run(run))
    lines = (run / name).read_bytes().splitlines(keepends=True)
    for kept in (0, 1, 2):
        (run / name).write_bytes(b"".join(lines[:kept]))
        assert "stops after turn" in failed(audit_run(run))["arms"]
    for other in ("events.jsonl", "unguided.jsonl"):
        (run / other).write_bytes(b"")
    assert failed(audit_run(run)) == {"guided: opening": "the log is empty: there is nothing to audit"}


def test_a_changed_transcript_is_found(run: Path) -> None:
    text = (run / "transcript.md").read_text()
    for changed in (text.replace("failed", "reached"), text + "Then she won.\n", "", text[:-1]):
        (run / "transcript.md").write_text(changed)
        assert "it was changed" in failed(audit_run(run))["transcript"]
    (run / "transcript.md").unlink()
    assert "is missing" in failed(audit_run(run))["transcript"]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"text":', b'"text":"Another text.","text":', 1),
        lambda line: line.replace(b'"text":', b'"text": ', 1),
        lambda line: line.replace(b'"told":null', b'"told": null', 1) if b'"told":null' in line else line + b" ",
        lambda line: line.replace(b"{", b"{ ", 1),
    ],
)
def test_lines_that_were_written_otherwise_are_found(run: Path, change: Callable[[bytes], bytes]) -> None:
    head, data = FIRST, b""
    for number, line in enumerate((run / "events.jsonl").read_bytes().split(b"\n")[:-1]):
        line = line[: len(b'{"prev":"')] + head.encode() + line[len(b'{"prev":"') + 64 :]
        line = (change(line) if number == 1 else line) + b"\n"
        head, data = hashlib.sha256(line).hexdigest(), data + line
    (run / "events.jsonl").write_bytes(data)
    logs = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in ("events.jsonl", "unguided.jsonl")}
    edit_manifest(run, logs=logs)
    assert "not as it was written" in failed(audit_run(run))["guided: chain"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "Other"),
        ("threshold", 0.0),
        ("told", 0.5),
        ("turns", 9),
        ("goals", []),
        ("seed", 9),
        ("text", "A cake."),
    ],
)
def test_a_changed_opening_event_is_found(run: Path, field: str, value: object) -> None:
    rewrite(run, lambda rows: rows[0].update({field: value}))
    assert "guided: opening" in failed(audit_run(run))


def test_what_the_manifest_repeats_is_compared(run: Path) -> None:
    for field, value in {"seed": 99, "turns": 99, "scenario": "other"}.items():
        before = json.loads((run / "manifest.json").read_text())[field]
        edit_manifest(run, **{field: value})
        assert field in failed(audit_run(run))["manifest"]
        edit_manifest(run, **{field: before})
    with pytest.raises(RunDamaged, match="expected hashes of events.jsonl and unguided.jsonl alone"):
        edit_manifest(run, logs={"../../etc/passwd": "0" * 64})
        audit_run(run)


def test_what_was_not_looked_at_is_named(run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    details = {check.name: check.detail for check in audit_run(run).checks}
    assert details["files"] == "not looked at: notes.txt, timings.jsonl"


def test_a_changed_figure_is_found(run: Path) -> None:
    path = plot_progress(run)
    assert figure_problem(run) is None
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    assert "is not what the logs give" in str(figure_problem(run))
