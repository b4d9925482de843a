"""`steer audit`."""

import json
from pathlib import Path

import pytest

from tests.agents.cli.kit import document, steer

pytestmark = pytest.mark.usefixtures("undrawn")


def test_audit_of_a_good_and_of_a_changed_run(play: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    steer("run", play, "--out", run)
    for options in ([], ["--replay"]):
        answer = document(steer("audit", run, "--json", *options))
        assert answer["ok"] and all(check["ok"] for check in answer["checks"])
    assert "FAILED" not in steer("audit", run).stdout

    text = (run / "events.jsonl").read_text(encoding="utf-8")
    (run / "events.jsonl").write_text(text.replace("The sun was up.", "The sun was red."), encoding="utf-8")
    result = steer("audit", run, "--json")
    assert result.exit_code == 3
    assert not json.loads(result.stdout)["ok"]
    assert "FAILED" in steer("audit", run).stdout


def test_audit_tells_of_a_changed_scenario_even_with_a_replay(play: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    steer("run", play, "--out", run, "--no-baseline")
    scenario = run / "scenario.yaml"
    scenario.write_text(scenario.read_text(encoding="utf-8").replace("A boat.", "A ship."), encoding="utf-8")
    result = steer("audit", run, "--replay")
    assert (result.exit_code, "FAILED" in result.stdout) == (3, True)
