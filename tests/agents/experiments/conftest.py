"""A tiny model."""

from pathlib import Path

import pytest

from steer.models.latent_model import LatentModel
from tests.steer.tiny import sharpen, tiny_model


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return sharpen(tiny_model(tiny_llama))
