"""A step of each stage that has one, as it can be tried on made-up tokens: counted, or run for real and timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steer.errors import TrainingError
from steer.training.estimate.meta import random_base, random_model
from steer.training.optimizers import build_optimizer
from steer.training.phases import Phase, phases
from steer.training.recipe import BaseRecipe, Recipe, TrainRecipe
from steer.training.trainer import enable_checkpointing

RUNS = 3  # of which the first, that warms up, is not timed


@dataclass(frozen=True)
class Step:
    """A step of training.

    Attributes:
        name: of the stage; of the layout `minihf` with the step's.
        train: settings of its optimisation.
        build: from the base's configuration and a device, what is trained, with random weights and in training mode.
        loss: of that and its device, the loss of a batch of made-up tokens.
        tokens, positions: of a row, in the loss and in passes of the base.
        load_in: how a frozen base is held.
    """

    name: str
    train: TrainRecipe
    build: Callable[[Any, torch.device | str], nn.Module]
    loss: Callable[[Any, torch.device | str], Tensor]
    tokens: int
    positions: int
    load_in: str = "float32"


def steps_of(recipe: Recipe) -> list[Step]:
    """The steps of the stages base and autoencoder, as far as a recipe has them, in their order."""
    base, latent = recipe.base, recipe.autoencoder
    found = []
    if base is not None:
        found.append(
            Step("base", base.train, partial(_build_base, base), partial(_base_loss, base), base.block, base.block)
        )
    for phase in phases(recipe):
        build, tokens = partial(_build_objective, recipe, phase), phase.spans * phase.span_tokens
        found.append(Step(phase.name, phase.train, build, phase.trial, tokens, phase.positions, latent.load_in))
    return found


def _build_base(base: BaseRecipe, config: Any, device: torch.device | str) -> nn.Module:
    model = random_base(config, device).train()
    if base.train.gradient_checkpointing:
        enable_checkpointing(model)
    return model


def _base_loss(base: BaseRecipe, model: Any, device: torch.device | str) -> Tensor:
    ids = torch.ones(base.train.batch_size, base.block, dtype=torch.long, device=device)
    return model(input_ids=ids, labels=ids).loss


def _build_objective(recipe: Recipe, phase: Phase, config: Any, device: torch.device | str) -> nn.Module:
    latent = recipe.autoencoder
    dtype = torch.float32 if latent.load_in == "float32" else torch.bfloat16
    objective = phase.prepare(random_model(config, latent, device, rank=latent.lora_rank, dtype=dtype)).train()
    if phase.train.gradient_checkpointing:
        objective.activation_checkpointing_enable()
    return objective


@dataclass(frozen=True)
class Measured:
    """What steps took.

    Attributes:
        seconds: per optimiser step.
        memory: bytes at the fullest moment: on CUDA of tensors, on a CPU of the whole process.
    """

    seconds: float
    memory: int


def measure(step: Step, config: Any, device: torch.device) -> Measured:
    """Run a step some times for real, not compiled, on random weights, and time it.

    Raises:
        TrainingError: the base is to be quantised, which needs its weights.
    """
    if step.load_in not in ("float32", "bfloat16"):
        raise TrainingError(f"a base in {step.load_in} cannot be probed without its weights; leave out --probe")
    model, train = step.build(config, device), step.train
    rates: dict[str, Any] = {"learning_rate": 1e-6, "muon_learning_rate": 1e-6, "weight_decay": 0.0}
    optimizer = build_optimizer(model, kind=train.optimizer, **rates)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    begin = 0.0
    for run in range(RUNS):
        if run == 1:
            begin = time.perf_counter()
        for _ in range(train.gradient_accumulation_steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=train.bf16):
                loss = step.loss(model, device)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if cuda:
            torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - begin) / (RUNS - 1)
    return Measured(seconds, torch.cuda.max_memory_allocated(device) if cuda else _resident_peak())


def _resident_peak() -> int:
    """Bytes that this process has had in memory at most."""
    import resource
    import sys

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else 1024 * found
