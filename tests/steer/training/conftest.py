"""Small evaluations: what the figures are is tested beside what makes them."""

import functools
from collections.abc import Iterator

import pytest

from steer.evaluation import evaluate
from steer.training import latent_trainer

ROWS = 16


@pytest.fixture(scope="package", autouse=True)
def small_evaluations() -> Iterator[None]:
    """Evaluate few rows while a stage is trained and when it is packaged: they took longer than the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_trainer, "EVAL_ROWS", ROWS)
        patch.setattr(evaluate, "latent_figures", functools.partial(evaluate.latent_figures, rows=ROWS))
        yield
