"""Tiny latent models that the tests of searching share; nobody may change them for good."""

from collections.abc import Callable
from pathlib import Path

import pytest

from steer.models.latent_model import LatentModel
from tests.steer.families import make_base
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import SPAN, sharpen, tiny_model


@pytest.fixture(scope="session")
def model(tiny_llama: Path) -> LatentModel:
    """A tiny Llama whose logits are far from even."""
    return sharpen(tiny_model(tiny_llama))


@pytest.fixture(scope="session")
def of_family(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LatentModel]:
    """A tiny model on a base of that family, made once."""
    made: dict[str, LatentModel] = {}

    def make(family: str) -> LatentModel:
        if family not in made:
            made[family] = tiny_model(make_base(family, tiny_llama, tmp_path_factory.mktemp(family)))
        return made[family]

    return make


@pytest.fixture(scope="session")
def minihf(tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    """A model of BigVAE's layout."""
    base, checkpoint = make_minihf_folder(tmp_path_factory.mktemp("minihf"), seed=7)
    return LatentModel.from_minihf(checkpoint, base, span_tokens=SPAN, device="cpu")
