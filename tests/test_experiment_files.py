"""Every experiment file in examples/ runs on the packaged model, in small."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.experiments.play_file import holds_scenarios, load_plays
from agents.experiments.play_spec import Plays
from agents.experiments.plays import run_plays
from agents.experiments.runner import run_experiment
from agents.experiments.spec import Experiment, load_experiment
from steer.heads.prior import PriorConfig, PriorHead
from steer.models.latent_model import LatentModel
from tests.agents.cli.kit import steer
from tests.agents.experiments.kit import Letters

FILES = sorted((Path(__file__).resolve().parents[1] / "examples" / "experiments").glob("*.yaml"))
STORIES = (
    "A fox sat in the snow. He was cold. He found a den. He slept well.\n<|endoftext|>\n"
    "Mia had a boat. She sailed over the sea. She met a whale. They sang a song.\n"
)


@pytest.fixture(scope="module")
def packaged() -> LatentModel:
    """With a draft head, an untrained one where it comes without: how good it is does not matter here."""
    model = LatentModel.from_pretrained("llama-fable-6m")
    if model.prior is None:
        config = model.latent_config
        sizes = {"state_dim": config.base.hidden_size + config.z_dim, "z_dim": config.z_dim, "axes": config.z_dim}
        model.prior = PriorHead(PriorConfig(encoder_id=config.encoder_id, width=8, **sizes)).eval()
    return model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of two stories, for the arms that plan ways."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "stories.txt").write_text(STORIES, encoding="utf-8")
    done = steer("index", "build", folder / "stories.txt", "--store", folder / "store")
    assert done.exit_code == 0, done.output
    return str(folder / "store")


def small(loaded: Experiment, store: str) -> Experiment:
    """Two pairs, two spans, the first seed, and of each arm the smallest budget, at most 4."""
    data = json.loads(loaded.model_dump_json())
    arms = []
    for arm in data["arms"]:
        budgets = [min(4, *arm.pop("budgets"))] if arm["budgets"] else arm.pop("budgets")
        arms.append(arm | {"budgets": budgets} | ({"store": store} if "store" in arm else {}))
    changes = {"limit": 2, "spans": 2, "chunk": 2, "seeds": data["seeds"][:1], "arms": arms}
    return Experiment.model_validate(data | changes)


def small_plays(loaded: Plays, store: str) -> Plays:
    """Two turns of the first scenario of each relation that an arm asks for, else of the first, with the first seed."""
    data = loaded.experiment.model_dump(mode="json")
    for arm in data["arms"]:
        if "roadmap" in arm["planner"]:
            arm["planner"]["roadmap"]["store"] = store
    experiment = type(loaded.experiment).model_validate(data | {"seeds": data["seeds"][:1]})
    chosen = [next(scenario for scenario in loaded.scenarios if arm.plays(scenario)) for arm in experiment.arms]
    scenarios = {scenario.id: scenario.model_copy(update={"turns": 2}) for scenario in chosen}
    return Plays(experiment, tuple(scenarios.values()))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_file_runs(path: Path, packaged: LatentModel, store: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome: Any
    if holds_scenarios(path):
        plays = small_plays(load_plays(path), store)
        outcome = run_plays(plays, run, lambda: packaged, open_judge=Letters)
        arms = [arm.name for arm in plays.experiment.arms]
    else:
        experiment = small(load_experiment(path), store)
        outcome = run_experiment(experiment, run, lambda: packaged, open_judge=Letters)
        arms = [variant.name for variant in experiment.variants()]
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert outcome.written == outcome.cells and {row["arm"] for row in rows} == set(arms)
    texts = [row.get("text") or "".join(turn["text"] for turn in row["turns"]) for row in rows]
    assert all(text.strip() for text in texts)
