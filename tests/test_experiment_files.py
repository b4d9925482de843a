"""Every experiment file in examples/ runs, in small and on a tiny model whose tokens are the packaged one's.

Over all files every way of writing is run, with every option and every value that is no number; arms that differ in
numbers alone, or that an earlier file has too, are only loaded.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from agents.experiments.load import load_experiment
from agents.experiments.pairs.spec import PairExperiment
from agents.experiments.run import run_experiment
from agents.experiments.scenarios.kind import ScenarioKind
from agents.experiments.scenarios.spec import ScenarioExperiment
from agents.experiments.spec import Experiment
from agents.index.build import build_index, open_index
from agents.index.passages import Cutter, Document
from agents.scenarios.schema import override
from steer.heads.prior import PriorConfig, PriorHead
from steer.heads.reach import ReachConfig, ReachHead
from steer.models.build import fresh_model
from steer.models.checkpoint import packaged_model
from steer.models.config import LatentConfig
from steer.models.latent_model import LatentModel
from tests.agents.experiments.kit import Letters

FILES = sorted((Path(__file__).resolve().parents[1] / "examples" / "experiments").glob("*.yaml"))
STORIES = (
    "A fox sat in the snow. He was cold. He found a den. He slept well.",
    "Mia had a boat. She sailed over the sea. She met a whale. They sang a song.",
)


def traits(settings: Any, path: str = "") -> Iterator[str]:
    """Which options an arm has, and their values, numbers apart; each behind what it is an option of."""
    if isinstance(settings, dict):
        named = {key: value for key, value in settings.items() if key not in ("name", "budget", "budgets")}
        way = "/".join(str(settings[key]) for key in ("method", "policy") if key in settings)
        for key, value in named.items():
            yield from traits(value, f"{path}/{way}/{key}")
    elif isinstance(settings, list):
        for value in settings:
            yield from traits(value, path)
    else:
        number = isinstance(settings, (int, float)) and not isinstance(settings, bool)
        yield path if number else f"{path}={settings}"


def chosen_arms() -> dict[Path, list[str]]:
    """The arms of each file that are run: two at least, with the reference."""
    seen: set[str] = set()
    chosen = {}
    for path in FILES:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        arms = {arm["name"]: set(traits(arm)) for arm in data["arms"]}
        names = [data.get("reference", next(iter(arms)))]
        seen |= arms[names[0]]
        for name, found in sorted(arms.items(), key=lambda item: -len(item[1])):
            if name not in names and found - seen:
                names.append(name)
                seen |= found
        chosen[path] = names if len(names) > 1 else [*names, next(name for name in arms if name not in names)]
    return chosen


CHOSEN = chosen_arms()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    """A tiny untrained model with all heads, and the tokens, layers, spans and context of the packaged one."""
    packaged, base = packaged_model(), tmp_path_factory.mktemp("base")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(packaged / "base" / name, base / name)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "dtype": "float32"}
    config = AutoConfig.from_pretrained(base, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(base)
        as_packaged = LatentConfig.load(packaged)
        kept = {name: getattr(as_packaged, name) for name in ("span_tokens", "soft_tokens", "max_context")}
        made = fresh_model(base, z_dim=8, rank=4, alpha=4, **kept)
        latent = made.latent_config
        sizes = {"encoder_id": latent.encoder_id, "z_dim": 8, "width": 8}
        made.reach = ReachHead(ReachConfig.model_validate({**sizes, "told_similarity": 0.1, "told_chance": 0.2})).eval()
        made.prior = PriorHead(PriorConfig.model_validate({**sizes, "state_dim": 32 + 8, "axes": 8})).eval()
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def store(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of two stories, for the arms that plan ways."""
    folder = tmp_path_factory.mktemp("index") / "store"
    with open_index(folder, model, create=True) as index:
        build_index(model, index, [Document(f"{n}.txt", text) for n, text in enumerate(STORIES)], Cutter(model))
    return str(folder)


def small(loaded: Experiment, folder: Path, store: str, names: list[str]) -> Experiment:
    """The same with these arms and the first seed, and as little of the rest as shows that each arm can be written."""
    data = json.loads(loaded.model_dump_json())
    data |= {"seeds": data["seeds"][:1], "arms": [arm for arm in data["arms"] if arm["name"] in names]}
    if isinstance(loaded, PairExperiment):
        return small_pairs(data, store)
    assert isinstance(loaded, ScenarioExperiment)
    return small_scenarios(loaded, data, folder, store)


def small_pairs(data: dict[str, Any], store: str) -> PairExperiment:
    """Two pairs, two spans, and of each arm the smallest budget, at most 2, or 4."""
    arms = []
    for arm in data["arms"]:
        most = 4 if arm["method"] == "guided-search" else 2
        budgets = [min(most, *arm.pop("budgets"))] if arm["budgets"] else arm.pop("budgets")
        arms.append(arm | {"budgets": budgets} | ({"store": store} if "store" in arm else {}))
    return PairExperiment.model_validate(data | {"limit": 2, "spans": 2, "chunk": 2, "arms": arms})


def small_scenarios(loaded: ScenarioExperiment, data: dict[str, Any], folder: Path, store: str) -> ScenarioExperiment:
    """Two turns of a span of the first scenario of each relation that an arm asks for, else of the first."""
    for arm in data["arms"]:
        if "roadmap" in arm["planner"]:
            arm["planner"]["roadmap"]["store"] = store
    small = ScenarioExperiment.model_validate(data | {"scenarios": [str(folder)]})
    for arm in small.arms:
        scenario = next(scenario for scenario in ScenarioKind.make(loaded).scenarios if arm.runs(scenario))
        short = override(scenario, turns=2).model_copy(update={"spans_per_turn": 1})
        (folder / f"{scenario.id}.yaml").write_text(short.to_yaml(), encoding="utf-8")
    return small


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_file_runs(path: Path, model: LatentModel, store: str, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "scenarios"
    folder.mkdir()
    experiment = small(load_experiment(path), folder, store, CHOSEN[path])
    outcome = run_experiment(experiment, run, lambda: model, open_judge=Letters)
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert outcome.written == outcome.cells
    assert {row["arm"] for row in rows} == {name for _, name in experiment.arm_names()}
    texts = [row.get("text") or "".join(turn["text"] for turn in row["turns"]) for row in rows]
    assert all(text.strip() for text in texts)
