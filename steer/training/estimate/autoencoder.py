"""What the autoencoder stage will take: one step of training in the interleaved layout, MiniHF's two in the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steer.models.adapters import DECODER, ENCODER, ROUTER
from steer.models.latent_model import LatentModel
from steer.training.estimate.meta import Peak, meta_model, peak_of
from steer.training.estimate.probe import autoencoder_step, decoder_step, router_step
from steer.training.estimate.report import (
    KEPT,
    Estimate,
    along,
    base_count,
    finish,
    optimizer_bytes,
    step_memory,
    trained_count,
)
from steer.training.latent_trainer import unfreeze
from steer.training.objectives.interleaved import LatentObjective, SpanObjective
from steer.training.objectives.minihf import DecoderObjective, RouterObjective
from steer.training.recipe import LatentRecipe, MiniHFRecipe, Recipe, TrainRecipe

# Bytes per weight of what bitsandbytes stores: nf4 with doubly quantised scales (Dettmers et al. 2023), int8 by rows.
QUANTISED = {"4bit": 0.5 + 0.127 / 8, "8bit": 1.0}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Phase:
    """A step of the stage: what it trains, and how a pass of it is made.

    Attributes:
        name: of the estimate.
        train: settings of its optimisation.
        roles: adapters that it trains.
        with_head: whether the heads are trained too.
        objective: from a model, the module of its loss.
        step: from that module, a forward pass on made-up tokens on a device.
        tokens, places: of a row, in the loss and in passes of the base.
    """

    name: str
    train: TrainRecipe
    roles: Sequence[str]
    with_head: bool
    objective: Callable[[LatentModel], LatentObjective]
    step: Callable[[Any, torch.device | str], Callable[[], Tensor]]
    tokens: int
    places: int

    def prepare(self, model: LatentModel) -> LatentObjective:
        """The loss of a model, in training mode; gradients are on where the step trains, and nowhere else."""
        unfreeze(model, self.roles, head=self.with_head)
        objective = self.objective(model).train()
        if self.train.gradient_checkpointing:
            objective.activation_checkpointing_enable()
        return objective


def phases(latent: LatentRecipe | MiniHFRecipe) -> list[Phase]:
    """The steps of the autoencoder stage, in their order."""
    size, longest = latent.span_tokens, max(latent.context_lengths)
    if isinstance(latent, LatentRecipe):
        return [
            Phase(
                "autoencoder",
                latent.train,
                (ENCODER, ROUTER),
                True,
                SpanObjective,
                lambda objective, device: autoencoder_step(objective, latent, device),
                tokens=latent.spans * size,
                places=longest + latent.spans * (latent.soft_tokens + 2 * size),
            )
        ]
    return [
        Phase(
            "autoencoder/decoder",
            latent.train,
            (ENCODER, DECODER),
            True,
            DecoderObjective,
            lambda objective, device: decoder_step(objective, latent, device),
            tokens=size,
            places=3 * size - 1,
        ),
        Phase(
            "autoencoder/router",
            latent.router,
            (ROUTER,),
            False,
            lambda model: RouterObjective(model, context_lengths=latent.context_lengths),
            lambda objective, device: router_step(objective, latent, device),
            tokens=2 * size,
            places=longest + 3 * size,
        ),
    ]


def estimate_autoencoder(recipe: Recipe, config: Any, out: Path, device: torch.device) -> list[Estimate]:
    """The autoencoder stage on a base of a configuration: one estimate for each of its steps.

    Args:
        recipe: with a section `autoencoder`.
        config: of the base.
        out: where it will be written; need not exist.
        device: where it will run.

    Raises:
        TrainingError: the base cannot be built or counted.
    """
    found = [_estimate(recipe, phase, config, device) for phase in phases(recipe.autoencoder)]
    last = found[-1]
    packaged = last.parameters if recipe.base is not None else 0
    adapters = last.disk["model"] // 4
    last.disk["package"] = BYTES[recipe.package.dtype] * (adapters + packaged)
    return [finish(estimate, out, device) for estimate in found]


def _estimate(recipe: Recipe, phase: Phase, config: Any, device: torch.device) -> Estimate:
    latent, train = recipe.autoencoder, phase.train
    dtype = torch.float32 if latent.load_in == "float32" else torch.bfloat16
    vocabulary = config.get_text_config().vocab_size

    def build(of: Any) -> LatentModel:
        return meta_model(
            of,
            rank=latent.lora_rank,
            z_dim=latent.z_dim,
            soft_tokens=latent.soft_tokens,
            span_tokens=latent.span_tokens,
            layout=latent.layout,
            dtype=dtype,
        )

    def peak(shorter: Any) -> Peak:
        objective = phase.prepare(build(shorter))
        return peak_of([objective], phase.step(objective, "cpu"), vocabulary=vocabulary, bf16=train.bf16)

    model = build(config)
    phase.prepare(model)
    count, beside = base_count(model), trained_count(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    adapted = [p for n, p in model.peft.named_parameters() if n.endswith("base_layer.weight")]
    inner = sum(p.numel() for p in adapted)
    weights = {"base weights": count * (4 if dtype == torch.float32 else 2), "trained weights": 4 * beside}
    found = along(config, peak)
    if latent.load_in in QUANTISED:
        weights["base weights"] -= int(inner * (2 - QUANTISED[latent.load_in]))
        # A matrix is unpacked while it is used.
        found = Peak(found.activations + 2 * max(p.numel() for p in adapted), found.logits)
    rows = train.batch_size * train.gradient_accumulation_steps
    disk = {"checkpoints": KEPT * (4 * trained + optimizer_bytes(model, train)), "model": 4 * beside}
    return Estimate(
        phase.name,
        str(device),
        count,
        trained,
        train.steps,
        rows * phase.tokens,
        rows * phase.places,
        {**weights, **step_memory(model, train, found)},
        None,
        disk,
        0,
    )
