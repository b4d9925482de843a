"""What the MiniHF tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of recorded reference numbers; a path that was asked for must be there, the default may be missing."""
    if asked := os.environ.get("STEER_MINIHF_FIXTURE"):
        assert Path(asked, "expected.safetensors").is_file(), f"STEER_MINIHF_FIXTURE={asked}: no expected.safetensors"
        return Path(asked)
    folder = Path(__file__).parents[3] / "shared" / "fixtures" / "minihf"
    if not (folder / "expected.safetensors").is_file():
        pytest.skip("no recorded MiniHF numbers: set STEER_MINIHF_FIXTURE to their folder")
    return folder
