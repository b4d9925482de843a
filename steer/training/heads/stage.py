"""What the stages of heads share: stories are drawn, a head is fitted on them, measured, and saved with its model."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from steer.errors import CorpusError
from steer.models.config import LatentConfig
from steer.models.latent_model import LatentModel
from steer.training.fingerprint import claim
from steer.training.stage import is_done, mark_done

logger = logging.getLogger(__name__)

Fit = Callable[[LatentModel, list[str]], tuple[nn.Module, dict[str, Any]]]


def train_head(
    name: str,
    what: str,
    model_folder: str | Path,
    stories: Sequence[str],
    stage: Path,
    *,
    settings: Mapping[str, Any],
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
        settings: of the head, see `head_settings`.
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
        TrainingError: the stage was begun with other settings, or for another model.
    """
    target = stage / "model"
    claim(stage, head_settings(model_folder, settings, seed))
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
    _keep_card(Path(model_folder), target, what)
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


def head_settings(model_folder: str | Path, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What a head depends on besides the stories: its settings, the seed, and the model with the heads that it has."""
    config = LatentConfig.load(folder) if (folder := Path(model_folder)).is_dir() else None
    heads = sorted(file.name for file in folder.glob("*.safetensors")) if config else []
    encoder = config.encoder_id if config else str(model_folder)
    return {"encoder": encoder, "heads": heads, "seed": seed, "settings": dict(settings)}


def _keep_card(source: Path, target: Path, what: str) -> None:
    """Take a model's card and figures over to the folder in which it has one head more."""
    for name in ("README.md", "eval.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (card := target / "README.md").is_file() and (source / "README.md").is_file():
        text = card.read_text(encoding="utf-8").rstrip()
        card.write_text(f"{text}\n\nA {what} was trained for it since; the figures above are of before.\n", "utf-8")
