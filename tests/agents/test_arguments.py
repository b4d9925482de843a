"""Wrong types handed to the public functions of `agents` are told as errors of `agents`, by what came."""

from pathlib import Path
from typing import Any

import pytest

import agents
from agents.errors import AgentsError, ArgumentError
from agents.scenarios.schema import Scenario
from steer.models.latent_model import LatentModel


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": None}, r"scenario must be a Scenario, got None; load_scenario\(PATH\) reads one"),
        ({"scenario": "demo"}, "scenario must be a Scenario, got 'demo' of type str"),
        ({"model": "llama-fable-6m"}, r"model must be a LatentModel, got .*; LatentModel.from_pretrained\(FOLDER\)"),
        ({"out": 3}, "out must be a path, as a str or a Path; got 3 of type int"),
        ({"seed": "7"}, "seed must be a whole number, got '7' of type str"),
        ({"turns": True}, "turns must be a whole number, got True of type bool"),
    ],
)
def test_run_scenario(
    scenario: Scenario, model: LatentModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"scenario": scenario, "model": model, "out": tmp_path / "run"} | changes
    with pytest.raises(ArgumentError, match=message):
        agents.run_scenario(**arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("call", ["audit_run", "plot_progress", "read_progress", "render_transcript"])
@pytest.mark.parametrize("run", [None, 3, "", [Path("run")]])
def test_what_reads_a_run(call: str, run: Any) -> None:
    with pytest.raises(ArgumentError, match="run must be a path"):
        getattr(agents, call)(run)


def test_a_model_that_is_none(tmp_path: Path) -> None:
    anything: Any = "model"
    for call in (agents.resume_run, agents.audit_run):
        with pytest.raises(ArgumentError, match="model must be a LatentModel"):
            call(tmp_path, model=anything)


def test_an_argument_error_is_what_a_reader_expects() -> None:
    assert all(issubclass(ArgumentError, kind) for kind in (AgentsError, TypeError, ValueError))
