"""Small evaluations: what the figures are is tested beside what makes them."""

import functools
from collections.abc import Iterator

import pytest

from steer.evaluation import evaluate
from steer.evaluation.latents import latent_figures
from steer.training import latent_trainer, pipeline

ROWS = 16


@pytest.fixture(scope="package", autouse=True)
def small_evaluations() -> Iterator[None]:
    """Evaluate few rows while a stage is trained and when it is packaged: they took longer than the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_trainer, "EVAL_ROWS", ROWS)
        for module in (evaluate, pipeline):
            patch.setattr(module, "latent_figures", functools.partial(latent_figures, rows=ROWS))
        yield
