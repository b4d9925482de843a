"""A tiny model in memory, and one on disk for other processes."""

from pathlib import Path

import pytest

from steer.model import LatentModel
from tests.agents.cli_kit import model_folder
from tests.steer.tiny import sharpen, tiny_model


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return sharpen(tiny_model(tiny_llama))


@pytest.fixture(scope="module")
def saved(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tiny_llama, tmp_path_factory.mktemp("model"))
