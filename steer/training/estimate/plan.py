"""What the stages of a recipe will take, all together, and what to change where it is too much."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig

from steer.errors import RecipeError
from steer.models.adapters import ENCODER
from steer.models.checkpoint import PACKAGED_BASE, read_settings
from steer.training.base import base_config
from steer.training.chain import BEFORE_STAGES, load_chain
from steer.training.estimate.report import Estimate, estimate_head, estimate_step, read_config
from steer.training.estimate.steps import Measured, Step, measure, steps_of
from steer.training.heads import HEADS
from steer.training.heads.stage import HeadStage
from steer.training.recipe import PriorRecipe, ReachRecipe, Recipe

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Planned:
    """A stage of a plan.

    Attributes:
        estimate: what it takes.
        step: what can be run of it, on a base of `config`; None for the stages of heads, which are short.
    """

    estimate: Estimate
    step: Step | None
    config: Any


def config_of(recipe: Recipe, before: Sequence[Recipe] = ()) -> Any:
    """The configuration of a recipe's base: trained by it, pretrained, or of the recipes that it continues.

    Raises:
        RecipeError, ModelNotFound: there is none, or transformers does not take it.
    """
    for one in (recipe, *reversed(before)):
        if one.base is not None:
            return base_config(one.base, one.base.vocab_size)
        if one.pretrained is not None:
            return read_config(one.pretrained)
    raise RecipeError(f"{recipe.name} names no base")


def plan(
    recipe: Recipe, stages: Sequence[str], out: Path, device: torch.device, *, path: Path | None = None
) -> list[Planned]:
    """Estimates of the stages that a recipe has, in their order, packaging aside.

    The autoencoder stage has one, or in the layout `minihf` one for each of its two steps. Base and autoencoder of the
    recipes that this one continues come first.

    Args:
        recipe: the recipe.
        stages: those that would be run.
        out: folder of the run; need not exist.
        device: where it would run.
        path: the recipe's file, beside which those that it continues are; without it there are none.

    Raises:
        RecipeError, ModelNotFound: one of them is missing or wrong; see `config_of`.
        TrainingError: a stage cannot be estimated; says why.
    """
    before = [] if recipe.continues is None or path is None else load_chain(path)[:-1]
    config = config_of(recipe, [earlier for _, earlier in before])
    rounds = [(file.name, earlier, BEFORE_STAGES) for file, earlier in before]
    found: list[Planned] = []
    for name, one, wanted in (*rounds, (None, recipe, stages)):
        for planned in _plan_round(one, wanted, config, out, device):
            found.append(replace(planned, estimate=replace(planned.estimate, before=name)))
    return found


def _plan_round(recipe: Recipe, stages: Sequence[str], config: Any, out: Path, device: torch.device) -> list[Planned]:
    """The stages of one recipe, whose base has this configuration."""
    steps = [step for step in steps_of(recipe) if step.name.partition("/")[0] in stages]
    found = [Planned(estimate_step(step, config, out, device), step, config) for step in steps]
    if "autoencoder" in stages:
        last = found[-1].estimate
        packaged = last.parameters if recipe.base is not None else 0
        last.disk["package"] = BYTES[recipe.package.dtype] * (last.disk["model"] // 4 + packaged)
    latent = recipe.autoencoder
    for name, kind in HEADS.items():
        if name in stages and (settings := getattr(recipe, name)) is not None:
            head = estimate_head(kind, settings, latent, config, out, device, rank=latent.lora_rank)
            found.append(Planned(head, None, config))
    return found


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


def probe(planned: Sequence[Planned], device: torch.device) -> list[Measured | None]:
    """Some steps of planned stages on random weights, run for real; None for the stages that are short.

    Stages of the same shapes, as rounds of one model have them, are run once.

    Raises:
        TrainingError: see `measure`.
    """
    measured: dict[str, Measured | None] = {}
    found = []
    for each in planned:
        shapes = repr(replace(each.estimate, before=None, steps=0, free=0, disk={}, disk_free=0))
        if shapes not in measured:
            measured[shapes] = None if each.step is None else measure(each.step, each.config, device)
        found.append(measured[shapes])
    return found


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
