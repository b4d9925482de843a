"""What the stages of a recipe will take, all together, and what to change where it is too much."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig

from steer.errors import RecipeError
from steer.models.adapters import ENCODER
from steer.models.checkpoint import PACKAGED_BASE, read_settings
from steer.models.config import BaseIdentity, LatentConfig
from steer.training.base import base_config
from steer.training.chain import BEFORE_STAGES, load_chain
from steer.training.estimate.autoencoder import estimate_autoencoder, phases
from steer.training.estimate.heads import estimate_head
from steer.training.estimate.probe import Measured, measure, probe_base, random_model
from steer.training.estimate.report import Estimate, estimate_base, read_config
from steer.training.heads import HEADS
from steer.training.heads.stage import HeadStage
from steer.training.recipe import PriorRecipe, ReachRecipe, Recipe

ESTIMATED = ("base", "autoencoder", *HEADS)


def config_of(recipe: Recipe, path: Path | None = None) -> Any:
    """The configuration of a recipe's base: trained by it, pretrained, or of the recipe that it continues.

    Args:
        recipe: the recipe.
        path: its file, where one that it continues is looked for.

    Raises:
        RecipeError, ModelNotFound: there is none, or transformers does not take it.
    """
    for one in reversed(rounds_of(recipe, path).values()):
        if one.base is not None:
            return base_config(one.base, one.base.vocab_size)
        if one.pretrained is not None:
            return read_config(one.pretrained)
    raise RecipeError(f"{recipe.name} names no base")


def rounds_of(recipe: Recipe, path: Path | None = None) -> dict[str | None, Recipe]:
    """A recipe, under None, behind those that it continues, under their files' names.

    Args:
        recipe: the recipe.
        path: its file, beside which the others are; without it there are none.

    Raises:
        RecipeError: one of them is missing or wrong.
    """
    before = [] if recipe.continues is None or path is None else load_chain(path)[:-1]
    return {**{file.name: earlier for file, earlier in before}, None: recipe}


def plan(
    recipe: Recipe, stages: Sequence[str], out: Path, device: torch.device, *, path: Path | None = None
) -> list[Estimate]:
    """Estimates of the stages that a recipe has, in their order; those of `ESTIMATED` alone.

    The autoencoder stage has one, or in the layout `minihf` one for each of its two steps. Base and autoencoder of the
    recipes that this one continues come first.

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
    for before, one in rounds_of(recipe, path).items():
        wanted = stages if before is None else BEFORE_STAGES
        found += [replace(e, before=before) for e in _plan_round(one, wanted, config, out, device)]
    return found


def _plan_round(
    recipe: Recipe, stages: Sequence[str], config: Any, out: Path, device: torch.device
) -> Iterator[Estimate]:
    """Estimates of the stages of one recipe, whose base has this configuration."""
    if "base" in stages and recipe.base is not None:
        yield estimate_base(recipe, out, device, config=config)
    if "autoencoder" in stages:
        yield from estimate_autoencoder(recipe, config, out, device)
    latent, rank = _latent_config(recipe, config), recipe.autoencoder.lora_rank
    for name, kind in HEADS.items():
        if name in stages and (settings := getattr(recipe, name)) is not None:
            yield estimate_head(kind, settings, latent, config, out, device, rank=rank)


def plan_head(
    folder: Path, kind: HeadStage, recipe: ReachRecipe | PriorRecipe, out: Path, device: torch.device
) -> Estimate:
    """An estimate of training a head for a model that is there.

    Args:
        folder: of the model.
        kind: which head.
        recipe: its settings.
        out: where it would be written; need not exist.
        device: where it would run.

    Raises:
        CheckpointError, ModelNotFound: no model there, or its base has no configuration.
    """
    latent = read_settings(folder)
    where = folder / PACKAGED_BASE if latent.base.name == PACKAGED_BASE else latent.base.name
    rank = PeftConfig.from_pretrained(str(folder / ENCODER)).to_dict()["r"]
    return estimate_head(kind, recipe, latent, read_config(where), out, device, rank=rank)


def probe(
    recipe: Recipe, estimates: Sequence[Estimate], device: torch.device, *, path: Path | None = None
) -> list[Measured | None]:
    """Some steps of estimated stages on random weights, run for real; None for the stages that are short.

    Stages of the same shapes, as rounds of one model have them, are run once.

    Args:
        recipe, device, path: as for `plan`.
        estimates: what `plan` found.

    Raises:
        TrainingError: see `random_model`.
    """
    config, rounds = config_of(recipe, path), rounds_of(recipe, path)
    measured: dict[str, Measured | None] = {}
    found = []
    for estimate in estimates:
        shapes = repr(replace(estimate, before=None, steps=0, free=0, disk={}, disk_free=0))
        if shapes not in measured:
            measured[shapes] = _probe_stage(rounds[estimate.before], estimate.stage, config, device)
        found.append(measured[shapes])
    return found


def _probe_stage(recipe: Recipe, stage: str, config: Any, device: torch.device) -> Measured | None:
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
