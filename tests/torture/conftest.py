"""Kills and damage by the hundred: left out unless they are asked for (`make torture`, or `-m torture`).

`STEER_TORTURE=0.1` does a tenth of it.
"""

import os
from pathlib import Path

import pytest

from agents.scenarios.schema import Scenario
from steer.models.latent_model import LatentModel
from tests.agents.conftest import make_scenario, tiny_model


@pytest.fixture(scope="session")
def share() -> float:
    """Of the whole torture that is to be done."""
    return float(os.environ.get("STEER_TORTURE", "1"))


@pytest.fixture(scope="session")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama)


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    return make_scenario()
