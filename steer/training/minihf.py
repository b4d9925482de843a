"""The autoencoder stage in BigVAE's layout, by MiniHF's two steps.

First encoder, decoder and heads learn to rebuild spans; then the router learns to write from the latents of the
encoder, which stays as it is. What comes out is a model folder of layout `minihf`, and one in MiniHF's own files.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import set_peft_model_state_dict
from transformers import TrainingArguments, set_seed

from steer.data.windows import SpanDataset, collate, sentence_ends
from steer.errors import CheckpointError, TrainingError
from steer.heads.stored import load_head, read_tensors
from steer.models.adapters import DECODER, ENCODER, ROUTER
from steer.models.build import fresh_model
from steer.models.checkpoint import ADAPTER, HEADS
from steer.models.latent_model import LatentModel
from steer.models.minihf import save_minihf
from steer.models.quantization import load_options
from steer.training.autoencoder import AutoencoderTrainer, latent_settings
from steer.training.base import prepare_corpus
from steer.training.fingerprint import claim
from steer.training.objectives.minihf import DecoderObjective, MiniHFObjective, RouterObjective, beta_after
from steer.training.recipe import MiniHFRecipe, Recipe, TrainRecipe
from steer.training.stage import CurveWriter, compiles, is_done, mark_done, train_or_resume, training_arguments

logger = logging.getLogger(__name__)

EVAL_ROWS = 96


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
    target, first = stage / "model", stage / "decoder"
    claim(stage, latent_settings(recipe))
    if is_done(stage):
        logger.info("autoencoder: already done")
        return target
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
        unfreeze(model, (ENCODER, DECODER), head=True)
        arguments = training_arguments(settings.train, first, seed=recipe.seed, report_to=report_to)
        decoder = DecoderObjective(model, compiled=compiles(settings.train), **shared)
        data = _data(settings, settings.train, model, corpora, spans=1, context=settings.span_tokens, seed=recipe.seed)
        _train(decoder, settings, settings.train, arguments, data, first)
    unfreeze(model, (ROUTER,), head=False)
    arguments = training_arguments(settings.router, stage, seed=recipe.seed, report_to=report_to)
    lengths = settings.context_lengths
    router = RouterObjective(model, context_lengths=lengths, compiled=compiles(settings.router), **shared)
    # Other rows than in the first step.
    data = _data(settings, settings.router, model, corpora, spans=2, context=max(lengths), seed=recipe.seed + 1)
    _train(router, settings, settings.router, arguments, data, stage)
    return target


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


def unfreeze(model: LatentModel, roles: Sequence[str], *, head: bool) -> None:
    """Switch the gradients of some adapters, and of the heads, on, and all others off."""
    for name, parameter in model.peft.named_parameters():
        parameter.requires_grad_("lora_" in name and any(f".{role}." in name for role in roles))
    model.head.requires_grad_(head)


def _data(
    settings: MiniHFRecipe, train: TrainRecipe, model: LatentModel, corpora: Any, *, spans: int, context: int, seed: int
) -> dict[str, SpanDataset]:
    """Rows to train and to evaluate on: `spans` spans behind `context` tokens, whole for the encoder as in MiniHF."""
    stories, repeats, validation = corpora
    shared: dict[str, Any] = {
        "spans": spans,
        "span_tokens": settings.span_tokens,
        "context_tokens": context,
        "eos_id": model.tokenizer.eos_token_id,
        "partial_share": 0.0,
        "ends": sentence_ends(model.tokenizer),
    }
    rows = train.steps * train.batch_size * train.gradient_accumulation_steps * PartialState().num_processes
    return {
        "train_dataset": SpanDataset(stories, repeats, length=rows, seed=seed, **shared),
        "eval_dataset": SpanDataset(validation, None, length=EVAL_ROWS, seed=0, **shared),
    }


def _train(
    objective: MiniHFObjective,
    settings: MiniHFRecipe,
    train: TrainRecipe,
    arguments: TrainingArguments,
    data: dict[str, SpanDataset],
    stage: Path,
) -> None:
    """Train one step on its objective, and save the model in the step's folder."""
    stage.mkdir(parents=True, exist_ok=True)
    set_seed(arguments.seed)
    trainer = AutoencoderTrainer(
        beta=lambda step: beta_after(settings.beta, settings.beta_steps, step),
        span_tokens=settings.span_tokens,
        train_recipe=train,
        model=objective,
        args=arguments,
        data_collator=collate,
        callbacks=[CurveWriter(stage / "curve.jsonl")],
        **data,
    )
    metrics = train_or_resume(trainer, stage)
    if trainer.is_world_process_zero():
        model = objective.model.eval()
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        norm = metrics["eval_latent_norm"]
        model.latent_config = model.latent_config.model_copy(update={"latent_norm": norm})
        model.save_pretrained(stage / "model")
        save_minihf(model, stage / "minihf")
        mark_done(stage, {**metrics, "parameters": parameters})
    PartialState().wait_for_everyone()
