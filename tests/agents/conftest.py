"""A tiny untrained model and a short scenario with two characters and every kind of goal."""

from pathlib import Path
from typing import Any

import pytest

from agents.scenarios.schema import Scenario
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from tests.agents.cli.kit import model_folder

OPENING = "The sun was up."


@pytest.fixture(scope="session")
def model(tiny_llama: Path) -> LatentModel:
    """Spans of 8 byte tokens, latents that matter to what is written, and a context that a short run outgrows."""
    return tiny_model(tiny_llama)


@pytest.fixture(scope="session")
def saved(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model, for the command line and for other processes; nobody writes into it."""
    return model_folder(tiny_llama, tmp_path_factory.mktemp("model"))


def tiny_model(base: Path, *, seed: int = 0) -> LatentModel:
    sizes: Any = {"span_tokens": 8, "z_dim": 8, "soft_tokens": 1, "rank": 4, "alpha": 4, "max_context": 48}
    model = fresh_model(base, name="tiny", seed=seed, **sizes)
    # Untrained soft tokens whisper; louder ones make guided and unguided text differ.
    model.head.w_d.weight.data.mul_(20)
    return model


def make_scenario(**changes: object) -> Scenario:
    """A scenario whose goals fit spans of 8 bytes; `planner` and the like replace the whole part."""
    data: dict[str, object] = {
        "id": "tiny",
        "title": "Tiny",
        "opening": OPENING,
        "turns": 4,
        "spans_per_turn": 2,
        "seed": 5,
        "characters": [
            {
                "id": "ann",
                "name": "Ann",
                "voice": ["Oh my!", "Well, well, well, well."],
                "goals": [
                    {"id": "sea", "text": "A boat.", "by_turn": 2},
                    {"id": "hill", "text": "Up top.", "weight": 0.8},
                    {"id": "wet", "kind": "avoid", "text": "Rain.", "weight": 0.5},
                ],
            },
            {"id": "bob", "name": "Bob", "goals": [{"id": "eat", "text": "Cake!"}]},
        ],
        "planner": {"guidance_scale": 1.5, "reached": 0.9},
        "sampling": {"temperature": 0.9, "top_p": 1.0},
    }
    return Scenario.model_validate(data | changes)


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    return make_scenario()
