"""What a stage of a recipe will take: parameters, tokens, memory by part, and disk, from configurations alone.

Here is what the stages share, and the base stage; the others are in `estimate_latent` and `estimate_heads`. No weights
are loaded or downloaded. Parameters are counted on a model without weights; what a step needs besides them is counted
in a step without contents (`steer.training.estimate.meta`), with few layers and with a few more, and continued to all
of them:
each layer adds the same.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from steer.errors import ModelNotFound, TrainingError
from steer.models.base import missing_folder
from steer.models.latent_model import LatentModel
from steer.training.base import base_config
from steer.training.checkpointing import enable_checkpointing
from steer.training.estimate.meta import Peak, hollow_base, peak_of, with_layers
from steer.training.estimate.probe import base_step
from steer.training.optimizers import build_optimizer
from steer.training.recipe import Recipe, TrainRecipe

FEW, MORE = 2, 4  # layers of the two counted steps; even, as some families take turns of two kinds of layers
# On a CPU: what the C library keeps of freed blocks; mean over four sizes of base, of 0.2 to 0.6 GiB measured.
HEAP = 0.35 * 2**30
KEPT = 2  # checkpoints that stay, see `training_arguments`
LIBRARIES = 0.52 * 2**30  # resident memory of Python, torch, transformers and PEFT before any model; measured


@dataclass(frozen=True)
class Estimate:
    """What a stage takes, per process.

    Attributes:
        stage: its name; of the layout `minihf` with the step's, `autoencoder/decoder`.
        device: where it runs.
        parameters: of the base.
        trained: parameters that are trained.
        steps: optimiser steps.
        tokens_per_step: tokens that the loss is taken over, per optimiser step.
        positions_per_step: places that go through the base, per optimiser step.
        memory: bytes by part, on the device.
        free: bytes that are free there, or None where nobody knows.
        disk: bytes by what is written.
        disk_free: bytes that are free where it is written.
        before: the recipe whose stage it is, if that is one which the asked one continues.
    """

    stage: str
    device: str
    parameters: int
    trained: int
    steps: int
    tokens_per_step: int
    positions_per_step: int
    memory: dict[str, int]
    free: int | None
    disk: dict[str, int]
    disk_free: int
    before: str | None = None

    @property
    def total(self) -> int:
        """Bytes of memory, all parts."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether memory and disk are free; true where nobody knows."""
        return (self.free is None or self.total <= self.free) and sum(self.disk.values()) <= self.disk_free


def read_config(name: str | Path, **options: Any) -> Any:
    """The configuration of a base: of a folder, or of a hub model, of which no weights are downloaded.

    Raises:
        ModelNotFound: there is none.
    """
    if missing_folder(name):
        raise ModelNotFound(f"no configuration of a model at {str(name)!r}: no such folder; expected one, or a hub id")
    try:
        return AutoConfig.from_pretrained(name, **{"local_files_only": Path(name).is_dir(), **options})
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFound(
            f"no configuration of a model at {str(name)!r}: {reason}; expected a folder with config.json or a hub id"
        ) from error


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    return None


def estimate_base(recipe: Recipe, out: Path, device: torch.device, *, config: Any = None) -> Estimate:
    """The base stage.

    Args:
        recipe: with a section `base`.
        out: where it will be written; need not exist.
        device: where it will run.
        config: of the base; by default the one that the recipe describes.

    Raises:
        RecipeError, TrainingError: the architecture cannot be built or counted.
    """
    base = recipe.base
    if base is None:
        raise TrainingError("the recipe trains no base; it names a pretrained one")
    train = base.train
    config = config or base_config(base, base.vocab_size)

    def peak(shorter: Any) -> Peak:
        model = hollow_base(shorter)
        model.train()
        if train.gradient_checkpointing:
            enable_checkpointing(model)
        step = base_step(model, base)
        return peak_of([model], step, vocabulary=config.get_text_config().vocab_size, bf16=train.bf16)

    model = hollow_base(config)
    count = sum(p.numel() for p in model.parameters())
    tokens = train.batch_size * train.gradient_accumulation_steps * base.block
    disk = {"checkpoints": KEPT * (4 * count + optimizer_bytes(model, train)), "model": 4 * count}
    memory = {"weights": 4 * count, **step_memory(model, train, along(config, peak))}
    found = Estimate("base", str(device), count, count, train.steps, tokens, tokens, memory, None, disk, 0)
    return finish(found, out, device)


def along(config: Any, peak: Callable[[Any], Peak]) -> Peak:
    """The peak of all layers, from those of few; what each layer adds is the same."""
    layers = config.get_text_config().num_hidden_layers
    if layers <= MORE + FEW:
        return peak(config)
    few, more = peak(with_layers(config, FEW)), peak(with_layers(config, MORE))
    slope = (more.activations - few.activations) / (MORE - FEW)
    return Peak(few.activations + slope * (layers - FEW), more.logits)


def step_memory(model: nn.Module, train: TrainRecipe, peak: Peak) -> dict[str, int]:
    """What a step takes besides weights."""
    return {
        "gradients": 4 * sum(p.numel() for p in model.parameters() if p.requires_grad),
        "optimizer": optimizer_bytes(model, train),
        "activations": int(peak.activations - peak.logits),
        "logits": int(peak.logits),
    }


def optimizer_bytes(model: nn.Module, train: TrainRecipe) -> int:
    """Bytes of the optimizer's state: two numbers per parameter for AdamW, one for Muon's matrices."""
    made = build_optimizer(model, kind=train.optimizer, learning_rate=1.0, muon_learning_rate=1.0, weight_decay=0.0)
    total = 0
    for part in getattr(made, "parts", (made,)):
        numbers = 1 if isinstance(part, torch.optim.Muon) else 2
        total += sum(4 * numbers * p.numel() for group in part.param_groups for p in group["params"])
    return total


def base_count(model: LatentModel) -> int:
    """Parameters of a latent model's base."""
    return sum(p.numel() for n, p in model.peft.named_parameters() if "lora_" not in n)


def trained_count(model: LatentModel) -> int:
    """Parameters of adapters and heads."""
    return sum(p.numel() for p in model.parameters()) - base_count(model)


def finish(found: Estimate, out: Path, device: torch.device) -> Estimate:
    """Add what the place where it runs says."""
    memory = dict(found.memory)
    if device.type == "cpu":
        memory["libraries"] = int(LIBRARIES)
        if found.stage.startswith("autoencoder"):  # the other stages come back to the same sizes
            memory["heap"] = int(HEAP)
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return replace(found, memory=memory, free=free_memory(device), disk_free=shutil.disk_usage(there).free)
