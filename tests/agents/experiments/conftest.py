"""A tiny model, and runs without figures."""

from pathlib import Path

import pytest

from steer.models.latent_model import LatentModel
from tests.steer.tiny import sharpen, tiny_model


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return sharpen(tiny_model(tiny_llama))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without their figures, which take longer to draw than a tiny model to write. `monkeypatch.undo` has them."""
    monkeypatch.setattr("agents.experiments.run.draw", lambda results: {})
