"""Stage 2: encoder, router and heads on a frozen base, in either layout.

Leaves `autoencoder/model`. In the layout `minihf` also `autoencoder/decoder/model` (after the first step, its router
untrained), and beside each of them `minihf`, the same in MiniHF's own files.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import set_peft_model_state_dict

from steer.errors import CheckpointError, TrainingError
from steer.heads.stored import load_head, read_tensors
from steer.models.build import fresh_model
from steer.models.checkpoint import ADAPTER, HEADS, STATES
from steer.models.latent_model import LatentModel
from steer.models.quantization import load_options
from steer.training.latent_trainer import train_phase
from steer.training.phases import phases
from steer.training.prepare import prepare_corpus
from steer.training.recipe import LatentRecipe, Recipe, shape_of
from steer.training.stage import claim, is_done
from steer.training.state_encoder import start_state_encoder

logger = logging.getLogger(__name__)


def latent_settings(recipe: Recipe) -> dict[str, Any]:
    """What the result of the stage depends on, see `steer.training.stage.claim`."""
    named = {"seed": recipe.seed, "pretrained": recipe.pretrained, "data": recipe.data.model_dump()}
    return {**named, "autoencoder": recipe.autoencoder.model_dump()}


def train_autoencoder(
    recipe: Recipe,
    out: Path,
    data_root: Path,
    base: str | Path,
    *,
    start: Path | None = None,
    report_to: str = "none",
) -> Path:
    """Train the autoencoder stage of a recipe, or go on, or do nothing if done.

    Args:
        recipe: its section `autoencoder`.
        out: folder of the run.
        data_root: where the recipe's source paths start.
        base: folder or hub id of the base model.
        start: folder of a latent model whose adapters and heads are trained on; else they are random.
        report_to: passed to `TrainingArguments`.

    Returns:
        The folder of the trained model (float32).

    Raises:
        TrainingError: it was begun with other settings, does not fit what it goes on from, or failed.
    """
    latent, stage = recipe.autoencoder, out / "autoencoder"
    claim(stage, latent_settings(recipe))
    if is_done(stage):
        logger.info("autoencoder: already done")
        return stage / "model"
    model = fresh_model(
        base,
        name=recipe.name,
        rank=latent.lora_rank,
        alpha=latent.lora_alpha,
        tied=getattr(latent, "tied_start", True),
        seed=recipe.seed,
        **shape_of(latent),
        **load_options(latent.load_in, torch.bfloat16 if latent.train.bf16 else torch.float32),
    )
    if start is not None:
        _take_over(model, start, model.latent_config.roles)
    with PartialState().main_process_first():
        corpora = prepare_corpus(recipe, model.tokenizer, out / "corpus", data_root)
    if isinstance(latent, LatentRecipe) and latent.state_encoder is not None and start is None:
        start_state_encoder(model, corpora[0], latent.state_encoder, stage, seed=recipe.seed)
    *earlier, last = phases(recipe)
    for phase in earlier:
        if is_done(out / phase.name):
            _take_over(model, out / phase.name / "model", phase.roles)
        else:
            train_phase(phase, model, recipe, corpora, out / phase.name, report_to=report_to)
    return train_phase(last, model, recipe, corpora, stage, report_to=report_to)


def _take_over(model: LatentModel, folder: Path, roles: Sequence[str]) -> None:
    """Fill adapters and heads from the folder of another model; its base may have other weights.

    Raises:
        TrainingError: they are of other shapes.
    """
    try:
        for role in roles:
            set_peft_model_state_dict(model.peft, read_tensors(folder / role / ADAPTER), adapter_name=role)
        load_head(model.head, read_tensors(folder / HEADS), folder / HEADS)
        if model.state_encoder is not None:
            load_head(model.state_encoder, read_tensors(folder / STATES), folder / STATES)
    except (RuntimeError, CheckpointError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise TrainingError(
            f"{folder}, which training goes on from, does not fit the recipe ({reason}); put the recipe back, or train "
            "into a new folder"
        ) from error
