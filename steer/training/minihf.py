"""The autoencoder stage in BigVAE's layout, by MiniHF's two steps.

First encoder, decoder and heads learn to rebuild spans; then the router learns to write from the latents of the
encoder, which stays as it is. What comes out is a model folder of layout `minihf`, and one in MiniHF's own files.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import set_peft_model_state_dict

from steer.errors import CheckpointError, TrainingError
from steer.heads.stored import load_head, read_tensors
from steer.models.adapters import DECODER, ENCODER, ROUTER
from steer.models.build import fresh_model
from steer.models.checkpoint import ADAPTER, HEADS
from steer.models.latent_model import LatentModel
from steer.models.quantization import load_options
from steer.training.latent_trainer import latent_settings, span_data, train_objective, unfreeze
from steer.training.objectives.minihf import DecoderObjective, RouterObjective
from steer.training.prepare import prepare_corpus
from steer.training.recipe import MiniHFRecipe, Recipe
from steer.training.stage import claim, is_done
from steer.training.trainer import compiles

logger = logging.getLogger(__name__)


def train_minihf(recipe: Recipe, out: Path, data_root: Path, base: str | Path, *, report_to: str = "none") -> Path:
    """Train both steps of the autoencoder stage, or go on, or do nothing if done.

    Leaves `autoencoder/decoder/model` (after the first step, its router untrained), `autoencoder/model`, and beside
    each of them `minihf`, the same in MiniHF's files.

    Args:
        recipe: its section `autoencoder`, of layout `minihf`.
        out: folder of the run.
        data_root: where the recipe's source paths start.
        base: folder or hub id of the base model.
        report_to: passed to `TrainingArguments`.

    Returns:
        The folder of the trained model (float32).
    """
    settings, stage = recipe.autoencoder, out / "autoencoder"
    assert isinstance(settings, MiniHFRecipe)
    first = stage / "decoder"
    claim(stage, latent_settings(recipe))
    if is_done(stage):
        logger.info("autoencoder: already done")
        return stage / "model"
    model = fresh_model(
        base,
        name=recipe.name,
        layout="minihf",
        span_tokens=settings.span_tokens,
        z_dim=settings.z_dim,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        max_context=settings.max_context,
        seed=recipe.seed,
        **load_options(settings.load_in, torch.bfloat16 if settings.train.bf16 else torch.float32),
    )
    with PartialState().main_process_first():
        corpora = prepare_corpus(recipe, model.tokenizer, out / "corpus", data_root)
    shared: dict[str, Any] = {"context_drop": settings.context_drop, "noise": settings.noise, "seed": recipe.seed}
    if is_done(first):
        _take_over(model, first / "model")
    else:
        unfreeze(model, (ENCODER, DECODER))
        decoder = DecoderObjective(model, compiled=compiles(settings.train), **shared)
        sizes = {"spans": 1, "context": settings.span_tokens, "seed": recipe.seed}
        data = span_data(recipe, settings.train, model.tokenizer, corpora, **sizes)
        train_objective(decoder, recipe, settings.train, data, first, report_to=report_to)
    unfreeze(model, (ROUTER,), head=False)
    lengths = settings.context_lengths
    router = RouterObjective(model, context_lengths=lengths, compiled=compiles(settings.router), **shared)
    # Other rows than in the first step.
    sizes = {"spans": 2, "context": max(lengths), "seed": recipe.seed + 1}
    data = span_data(recipe, settings.router, model.tokenizer, corpora, **sizes)
    return train_objective(router, recipe, settings.router, data, stage, report_to=report_to)


def _take_over(model: LatentModel, folder: Path) -> None:
    """Fill encoder, decoder and heads from the folder of a finished first step.

    Raises:
        TrainingError: they are of other shapes.
    """
    try:
        for role in (ENCODER, DECODER):
            set_peft_model_state_dict(model.peft, read_tensors(folder / role / ADAPTER), adapter_name=role)
        load_head(model.head, read_tensors(folder / HEADS), folder / HEADS)
    except (RuntimeError, CheckpointError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise TrainingError(
            f"the first step in {folder} does not fit the recipe ({reason}); if the recipe was changed, train into a "
            "new folder"
        ) from error
