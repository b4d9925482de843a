"""What the stages of a recipe will take, all together, and what to change where it is too much."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig

from steer.adapters import ENCODER
from steer.checkpoint import PACKAGED_BASE
from steer.config import BaseIdentity, LatentConfig
from steer.errors import RecipeError
from steer.training.base_stage import base_config
from steer.training.estimate import Estimate, estimate_base, read_config
from steer.training.estimate_heads import estimate_prior, estimate_reach
from steer.training.estimate_latent import estimate_autoencoder, phases
from steer.training.probe import Measured, measure, probe_base, random_model
from steer.training.recipe import PriorRecipe, ReachRecipe, Recipe, load_recipe

ESTIMATED = ("base", "autoencoder", "reach", "prior")


def config_of(recipe: Recipe, path: Path | None = None) -> Any:
    """The configuration of a recipe's base: trained by it, pretrained, or of the recipe that it continues.

    Args:
        recipe: the recipe.
        path: its file, where one that it continues is looked for.

    Raises:
        RecipeError, ModelNotFound: there is none, or transformers does not take it.
    """
    if recipe.base is not None:
        return base_config(recipe.base, recipe.base.vocab_size)
    if recipe.pretrained is not None:
        return read_config(recipe.pretrained)
    if recipe.continues is None or path is None:
        raise RecipeError(f"{recipe.name} names no base")
    before = path.parent / recipe.continues
    return config_of(load_recipe(before), before)


def plan(
    recipe: Recipe, stages: Sequence[str], out: Path, device: torch.device, *, path: Path | None = None
) -> list[Estimate]:
    """Estimates of the stages that a recipe has, in their order; those of `ESTIMATED` alone.

    The autoencoder stage has one, or in the layout `minihf` one for each of its two steps.

    Args:
        recipe: the recipe.
        stages: those that would be run.
        out: folder of the run; need not exist.
        device: where it would run.
        path: the recipe's file, see `config_of`.

    Raises:
        RecipeError, ModelNotFound: see `config_of`.
        TrainingError: a stage cannot be estimated; says why.
    """
    config = config_of(recipe, path)
    found: list[Estimate] = []
    if "base" in stages and recipe.base is not None:
        found.append(estimate_base(recipe, out, device, config=config))
    if "autoencoder" in stages:
        found += estimate_autoencoder(recipe, config, out, device)
    latent, rank = _latent_config(recipe, config), recipe.autoencoder.lora_rank
    if "reach" in stages and recipe.reach is not None:
        found.append(estimate_reach(recipe.reach, latent, config, out, device, rank=rank))
    if "prior" in stages and recipe.prior is not None:
        found.append(estimate_prior(recipe.prior, latent, config, out, device, rank=rank))
    return found


def plan_head(folder: Path, head: ReachRecipe | PriorRecipe, out: Path, device: torch.device) -> Estimate:
    """An estimate of training a head for a model that is there.

    Args:
        folder: of the model.
        head: settings.
        out: where it would be written; need not exist.
        device: where it would run.

    Raises:
        CheckpointError, ModelNotFound: no model there, or its base has no configuration.
    """
    latent = LatentConfig.load(folder)
    where = folder / PACKAGED_BASE if latent.base.name == PACKAGED_BASE else latent.base.name
    rank = PeftConfig.from_pretrained(str(folder / ENCODER)).to_dict()["r"]
    config = read_config(where)
    if isinstance(head, ReachRecipe):
        return estimate_reach(head, latent, config, out, device, rank=rank)
    return estimate_prior(head, latent, config, out, device, rank=rank)


def probe(recipe: Recipe, stage: str, device: torch.device, *, path: Path | None = None) -> Measured | None:
    """Some steps of an estimated stage on random weights, run for real; None for the stages that are short.

    Raises:
        TrainingError: see `random_model`.
    """
    config = config_of(recipe, path)
    if stage == "base" and recipe.base is not None:
        return probe_base(config, recipe.base, device)
    for phase in phases(recipe.autoencoder):
        if phase.name == stage:
            objective = phase.prepare(random_model(config, recipe.autoencoder, device))
            return measure(objective, phase.step(objective, device), phase.train, device)
    return None


def advice(estimate: Estimate) -> list[str]:
    """What to change where a stage does not fit, the largest part first."""
    hints = {
        "base weights": "hold the base narrower: autoencoder.load_in: bfloat16 (half), or 4bit (an eighth)",
        "weights": "take a smaller architecture",
        "trained weights": "lower autoencoder.lora_rank",
        "optimizer": "train fewer parameters (autoencoder.lora_rank), or with optimizer: muon",
        "activations": "train.gradient_checkpointing: true, or a lower train.batch_size with more "
        "gradient_accumulation_steps",
        "logits": "a lower train.batch_size with more gradient_accumulation_steps",
        "latents": "fewer stories (reach.stories, prior.stories)",
    }
    parts = sorted(estimate.memory, key=lambda part: -estimate.memory[part])
    return [hints[part] for part in parts if part in hints][:2]


def _latent_config(recipe: Recipe, config: Any) -> LatentConfig:
    """What a recipe's model will say of itself, as far as estimates need it."""
    latent = recipe.autoencoder
    return LatentConfig(
        layout=latent.layout,
        span_tokens=latent.span_tokens,
        z_dim=latent.z_dim,
        soft_tokens=latent.soft_tokens,
        max_context=latent.max_context,
        base=BaseIdentity.planned(config, ""),
    )
