"""What the stages of heads share: stories are drawn, a head is fitted on them, measured, and saved with its model."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from steer.errors import CorpusError
from steer.model import LatentModel
from steer.training.runner import is_done, mark_done

logger = logging.getLogger(__name__)

Fit = Callable[[LatentModel, list[str]], tuple[nn.Module, dict[str, Any]]]


def train_head(
    name: str,
    what: str,
    model_folder: str | Path,
    stories: Sequence[str],
    stage: Path,
    *,
    fit: Fit,
    measure: Callable[[LatentModel], dict[str, Any]],
    count: int,
    weights: np.ndarray | None = None,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Train a head for a model, or do nothing if done.

    Args:
        name: the model's attribute that holds the head, `reach` or `prior`; also the stage's.
        what: what it is called in errors.
        model_folder: a model folder, the packaged model's name or a hub id.
        stories: training text.
        stage: working folder.
        fit: from the model and the chosen stories to a head and figures of its training for `done.json`.
        measure: figures of the model with its head, on stories that it was not trained on.
        count: stories that are chosen, at most.
        weights: `[n]` how likely each story is chosen.
        seed: of the choice.
        **options: of `LatentModel.from_pretrained`.

    Returns:
        `stage/model`: the model with its head.

    Raises:
        CorpusError: no stories.
    """
    target = stage / "model"
    if is_done(stage):
        logger.info("%s: already done", name)
        return target
    if not stories:
        raise CorpusError(f"no stories to train the {what} on")
    begin = time.monotonic()
    model = LatentModel.from_pretrained(model_folder, **options)
    share = None if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    rng = np.random.default_rng((seed, 0))
    chosen = rng.choice(len(stories), min(count, len(stories)), replace=False, p=share)
    texts = [stories[int(i)] for i in chosen]
    head, trained = fit(model, texts)
    setattr(model, name, head.to(model.device))
    figures = measure(model)
    model.save_pretrained(target)
    mark_done(
        stage,
        {
            **trained,
            "figures": figures,
            "parameters": sum(p.numel() for p in head.parameters()),
            "stories": len(texts),
            "seconds": round(time.monotonic() - begin),
        },
    )
    return target
