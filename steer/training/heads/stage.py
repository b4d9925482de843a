"""The stage of a head: stories are drawn, a head is fitted on them, measured, and saved with its model.

```
latents/settings.json   what is encoded, so that a folder is not continued with something else
latents/NNNNN.safetensors   what is encoded of 200 stories each; kept, so that a stopped stage goes on
curve.jsonl             loss in training
model/                  the model with its head
done.json               figures on unseen stories
```
Encoding takes most of the time, and is what resuming saves; the head itself trains in a minute or two.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from steer.errors import CorpusError
from steer.models.config import LatentConfig
from steer.models.latent_model import LatentModel
from steer.training.heads.shards import encode_in_parts
from steer.training.recipe import PriorRecipe, ReachRecipe
from steer.training.stage import claim, is_done, mark_done

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadStage:
    """The stage of one head.

    Attributes:
        name: of the stage, of the recipe's section, and of the model's attribute that holds the head.
        title: of the head, in messages.
        recipe: class of the settings.
        read: from a model, stories, `first` (the number of the first), `seed` and `spans` to tensors that are kept.
        fit: from a model, stories, what was read of them, settings, a file of records and a seed to a head and figures
            of its training.
        measure: from a model with its head, unseen stories and a seed to figures.
        sizes: from settings, the width of a latent and that of the base to the head's parameters and the numbers that
            are kept of each passage, for estimates.
    """

    name: str
    title: str
    recipe: type[ReachRecipe] | type[PriorRecipe]
    read: Callable[..., dict[str, Tensor]]
    fit: Callable[[LatentModel, list[str], list[dict[str, Tensor]], Any, Path, int], tuple[nn.Module, dict[str, Any]]]
    measure: Callable[[LatentModel, Sequence[str], int], dict[str, Any]]
    sizes: Callable[[Any, int, int], tuple[int, int]]


def train_head(
    kind: HeadStage,
    model_folder: str | Path,
    recipe: ReachRecipe | PriorRecipe,
    stories: Sequence[str],
    unseen: Sequence[str],
    stage: Path,
    *,
    weights: np.ndarray | None = None,
    seed: int = 0,
    **loading: Any,
) -> Path:
    """Train a head for a model, or go on, or do nothing if done.

    Args:
        kind: which head.
        model_folder: a model folder, the packaged model's name or a hub id.
        recipe: settings.
        stories: training text.
        unseen: stories for the figures; not among `stories`.
        stage: working folder; keep it to resume.
        weights: `[n]` how likely each story is chosen, where the recipe takes fewer.
        seed: of all choices.
        **loading: of `LatentModel.from_pretrained`.

    Returns:
        `stage/model`: the model with its head.

    Raises:
        CorpusError: no stories, or too few that are long enough.
        TrainingError: the stage was begun with another model, recipe, seed or text, or the loss became NaN.
    """
    target = stage / "model"
    claim(stage, head_settings(model_folder, recipe, seed))
    if is_done(stage):
        logger.info("%s: already done", kind.name)
        return target
    if not stories:
        raise CorpusError(f"no stories to train the {kind.title} on")
    begin = time.monotonic()
    model = LatentModel.from_pretrained(model_folder, **loading)
    share = None if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    rng = np.random.default_rng((seed, 0))
    chosen = rng.choice(len(stories), min(recipe.stories, len(stories)), replace=False, p=share)
    texts, options = [stories[int(i)] for i in chosen], {"seed": seed, "spans": recipe.spans}
    made_of = {"encoder_id": model.latent_config.encoder_id, **options}
    parts = encode_in_parts(texts, partial(kind.read, model, **options), stage / "latents", made_of)
    head, trained = kind.fit(model, texts, parts, recipe, stage / "curve.jsonl", seed)
    setattr(model, kind.name, head.to(model.device))
    figures = kind.measure(model, unseen, seed)
    model.save_pretrained(target)
    _keep_card(Path(model_folder), target, kind.title)
    mark_done(
        stage,
        {
            **trained,
            "figures": figures,
            "parameters": sum(p.numel() for p in head.parameters()),
            "stories": len(chosen),
            "seconds": round(time.monotonic() - begin),
        },
    )
    return target


def head_settings(model_folder: str | Path, recipe: ReachRecipe | PriorRecipe, seed: int) -> dict[str, Any]:
    """What a head depends on besides the stories: its settings, the seed, and the model with the heads that it has."""
    config = LatentConfig.load(folder) if (folder := Path(model_folder)).is_dir() else None
    heads = sorted(file.name for file in folder.glob("*.safetensors")) if config else []
    encoder = config.encoder_id if config else str(model_folder)
    return {"encoder": encoder, "heads": heads, "seed": seed, "settings": recipe.model_dump()}


def _keep_card(source: Path, target: Path, what: str) -> None:
    """Take a model's card and figures over to the folder in which it has one head more."""
    for name in ("README.md", "eval.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (card := target / "README.md").is_file() and (source / "README.md").is_file():
        text = card.read_text(encoding="utf-8").rstrip()
        card.write_text(f"{text}\n\nA {what} was trained for it since; the figures above are of before.\n", "utf-8")
