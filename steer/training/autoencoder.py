"""Stage 2: encoder, router and heads together, on a frozen base."""

import logging
from pathlib import Path

import torch
from accelerate import PartialState

from steer.errors import TrainingError
from steer.models.adapters import ENCODER, ROUTER
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from steer.models.quantization import load_options
from steer.training.latent_trainer import latent_settings, span_data, train_objective, unfreeze
from steer.training.objectives.interleaved import SpanObjective
from steer.training.prepare import prepare_corpus
from steer.training.recipe import LatentRecipe, Recipe
from steer.training.stage import claim, is_done
from steer.training.trainer import compiles

logger = logging.getLogger(__name__)


def train_autoencoder(
    recipe: Recipe,
    out: Path,
    data_root: Path,
    base: str | Path,
    *,
    start: tuple[Path, str | Path] | None = None,
    report_to: str = "none",
) -> Path:
    """Train the autoencoder stage of a recipe, or go on, or do nothing if done.

    Args:
        recipe: its section `autoencoder`.
        out: folder of the run.
        data_root: where the recipe's source paths start.
        base: folder or hub id of the base model.
        start: a latent model and its base, whose adapters and heads are trained on; else they are random.
        report_to: passed to `TrainingArguments`.

    Returns:
        The folder of the trained model (float32).
    """
    latent, stage = recipe.autoencoder, out / "autoencoder"
    assert isinstance(latent, LatentRecipe)
    claim(stage, latent_settings(recipe))
    if is_done(stage):
        logger.info("autoencoder: already done")
        return stage / "model"
    model = fresh_model(
        base,
        name=recipe.name,
        span_tokens=latent.span_tokens,
        z_dim=latent.z_dim,
        soft_tokens=latent.soft_tokens,
        rank=latent.lora_rank,
        alpha=latent.lora_alpha,
        max_context=latent.max_context,
        tied=latent.tied_start,
        seed=recipe.seed,
        **load_options(latent.load_in, torch.bfloat16 if latent.train.bf16 else torch.float32),
    )
    unfreeze(model, (ENCODER, ROUTER))
    if start is not None:
        start_from(model, LatentModel.from_pretrained(str(start[0]), base=start[1], dtype="float32"))
    with PartialState().main_process_first():
        corpora = prepare_corpus(recipe, model.tokenizer, out / "corpus", data_root)
    objective = SpanObjective(
        model,
        context_lengths=latent.context_lengths,
        isolated_prob=latent.isolated_prob,
        null_prob=latent.null_prob,
        null_sequence_prob=latent.null_sequence_prob,
        noise=latent.noise,
        seed=recipe.seed,
        compiled=compiles(latent.train),
    )
    data = span_data(
        recipe,
        latent.train,
        model.tokenizer,
        corpora,
        spans=latent.spans,
        context=max(latent.context_lengths),
        partial_prob=latent.partial_prob,
        seed=recipe.seed,
    )
    return train_objective(objective, recipe, latent.train, data, stage, report_to=report_to)


def start_from(model: LatentModel, start: LatentModel) -> None:
    """Copy what is trained, adapters and heads, from another model; the base may have other weights.

    Raises:
        TrainingError: the two differ in what is trained.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: p for name, p in start.named_parameters() if name in wanted}
    if {name: p.shape for name, p in wanted.items()} != {name: p.shape for name, p in found.items()}:
        raise TrainingError(
            "the recipe's encoder and router differ from those that it continues; keep z_dim, soft_tokens, lora_rank "
            "and the base's architecture, or leave out `continues`"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])
