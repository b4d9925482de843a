"""`steer doctor`: what it finds, also where something is broken."""

import json
from pathlib import Path

import pytest

from agents.cli import doctor as doctor_module
from agents.cli._output import Output
from agents.cli.doctor import Finding
from tests.agents.cli.kit import document, steer


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    return saved


def test_doctor_finds_this_installation_in_order(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = document(steer("doctor", "--model", folder, "--json"))
    checks = {check["name"]: check for check in answer["checks"]}
    assert answer["ok"]
    names = {"python", "threads", "CUDA", "C++ compiler", "model", "working folder", "extra judge", "extra train"}
    assert set(checks) == {*names, *doctor_module.NEEDED}
    assert "wrote 16 tokens" in checks["model"]["detail"]
    assert list(tmp_path.iterdir()) == []
    assert "model" in steer("doctor", "--model", folder).stdout


def test_doctor_exits_with_1_where_something_needed_is_broken(tmp_path: Path) -> None:
    result = steer("doctor", "--model", tmp_path, "--json")
    assert result.exit_code == 1
    broken = [check for check in json.loads(result.stdout)["checks"] if check["state"] == "broken"]
    assert [check["name"] for check in broken] == ["model"]
    assert "CheckpointError" in broken[0]["detail"]


def test_doctor_survives_broken_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        if name in ("peft", "torch"):
            raise ImportError(f"no {name} here\nsecond line")
        return "1.0"

    monkeypatch.setattr(doctor_module, "_version", broken)
    findings = {finding.name: finding for finding in doctor_module.examine(Output())}
    assert findings["peft"] == Finding("peft", "broken", "ImportError: no peft here")
    assert "model" not in findings and "threads" not in findings
    assert findings["working folder"].state == "ok"


def test_what_can_be_done_without_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    compiler, extra = doctor_module._compiler(), doctor_module._extra("judge", "somewhere")
    assert (compiler.state, extra.state) == ("missing", "missing")
    assert "pip install 'steer[judge]'" in extra.detail
