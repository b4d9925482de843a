"""Drafts by head wherever something is written: runs that resume and replay, searched turns, arms, the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.experiments.pairs.arms import Task, write_annealed, write_searched_guided
from agents.experiments.pairs.options import AnnealedOptions, FixedOptions, GuidedSearchOptions, MenuItem
from agents.log.chain import read_log
from agents.log.events import TurnEvent
from agents.scenarios.planner_settings import Planner
from agents.simulation.audit import audit_run
from agents.simulation.manifest import LOGS
from agents.simulation.simulation import resume_run, run_scenario
from steer.errors import GuidanceError
from steer.heads.prior import PriorConfig, PriorHead
from steer.models.latent_model import LatentModel
from steer.writing.config import WritingConfig
from steer.writing.sampling import SamplingConfig
from tests.agents.cli.kit import document, error_line, steer
from tests.agents.conftest import make_scenario, tiny_model
from tests.agents.experiments.kit import PAIRS

PLANNER = {"guidance_scale": 1.5, "reached": 0.9, "drafts": "head"}
SEARCHED = {**PLANNER, "method": "guided-search", "budget": 3, "policy": "best_of_n", "rewards": {"similarity": 1}}


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    made = tiny_model(tiny_llama)
    config = made.latent_config
    sizes = {"state_dim": config.base.hidden_size + config.z_dim, "z_dim": config.z_dim, "axes": config.z_dim}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made.prior = PriorHead(PriorConfig(encoder_id=config.encoder_id, width=8, **sizes)).eval()
    return made


@pytest.mark.parametrize("planner", [PLANNER, SEARCHED], ids=["annealed", "search"])
def test_a_run_resumes_and_replays_to_the_same_bytes(
    planner: dict[str, Any], model: LatentModel, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(event: object, arm: str) -> None:
        if isinstance(event, TurnEvent) and event.turn == 2:
            raise Stop

    scenario = make_scenario(planner=planner, turns=3)
    whole = run_scenario(scenario, model, tmp_path / "whole", baseline=False).path
    with pytest.raises(Stop):
        run_scenario(scenario, model, tmp_path / "cut", baseline=False, on_event=stop)
    resume_run(tmp_path / "cut", model)
    log = LOGS["guided"]
    assert (whole / log).read_bytes() == (tmp_path / "cut" / log).read_bytes()
    assert audit_run(whole, model=model, replay=True).ok
    turns = [event for event in read_log(whole / log).events if isinstance(event, TurnEvent)]
    assert len(turns) == 3 and all(t.drafts == 0 and t.tokens == t.spans * model.span_tokens for t in turns)
    other = make_scenario(planner={**planner, "drafts": "write"}, turns=3)
    written = run_scenario(other, model, tmp_path / "written", baseline=False).path
    found = [event for event in read_log(written / log).events if isinstance(event, TurnEvent)]
    assert any(turn.drafts for turn in found)


def test_a_planner_says_so_only_where_it_does() -> None:
    assert (Planner().drafts, Planner(drafts="head").model_dump()["drafts"]) == ("write", "head")
    with pytest.raises(ValueError, match="at least 2"):
        Planner(method="guided-search", budget=1)
    assert Planner(method="guided-search", budget=1, drafts="head").budget == 1
    for options in (AnnealedOptions, FixedOptions, GuidedSearchOptions):
        assert (options().drafts, options(drafts="head").model_dump()["drafts"]) == ("write", "head")


def test_a_model_without_a_head_is_told(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(GuidanceError, match="train one with `steer train prior`"):
        run_scenario(make_scenario(planner=PLANNER), tiny_model(tiny_llama), tmp_path / "run", baseline=False)


def test_arms_by_head_cost_what_they_write(model: LatentModel) -> None:
    config = WritingConfig(spans=2, sampling=SamplingConfig(temperature=0.9), guidance_scale=1)
    size, rewards = model.span_tokens, {"similarity": 1}
    task = Task(model, PAIRS[:2], PAIRS[:2], [1, 2], config, budget=3, rewards=rewards)
    head, written = (write_annealed(task, AnnealedOptions(drafts=drafts)) for drafts in ("head", "write"))
    for one, other in zip(head, written, strict=True):
        # A bridge over two spans drafts once, and encodes once for it in either way.
        assert one.tokens == len(one.ids) and other.tokens == len(other.ids) + size
        assert one.encodes == other.encodes == 2
    options = GuidedSearchOptions(policy="best_of_n", menu=(MenuItem(),), drafts="head")
    for one in write_searched_guided(task, options):
        nodes = one.details["nodes"]
        assert one.tokens == nodes * size and nodes + 1 < one.encodes <= 2 * nodes + 1


def test_steer_train_prior_and_write_with_it(saved: Path, tmp_path: Path) -> None:
    data = tmp_path / "stories.txt"
    stories = [f"The fox {i} saw a hen. It ran home! Was it glad? A hen sat. It was fun. The end." for i in range(150)]
    data.write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    options = ("--corpus", data, "--stories", 40, "--steps", 3)
    result = steer("train", "prior", "--model", saved, *options, "--out", tmp_path / "out")
    folder = tmp_path / "out" / "model"
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n"), result.stderr
    assert "nll_marginal" in result.stderr and "cosine drawn" in result.stderr
    figures = json.loads((tmp_path / "out" / "done.json").read_text(encoding="utf-8"))["figures"]
    assert figures["spans"] > 0
    write = ("write", "-c", "The fox ran. ", "-t", "A fox.", "-n", 2, "--json")
    texts = [document(steer(*write, "-m", folder, "--drafts", drafts))["text"] for drafts in ("head", "head", "write")]
    assert texts[0] == texts[1] != texts[2]
    searched = document(steer(*write, "-m", folder, "--drafts", "head", "--method", "guided-search", "--budget", 1))
    assert searched["text"]
    assert "train one with `steer train prior`" in error_line(steer(*write, "-m", saved, "--drafts", "head"))
