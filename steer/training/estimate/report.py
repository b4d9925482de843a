"""What a stage of a recipe will take: parameters, tokens, memory by part, and disk, from configurations alone.

No weights are loaded or downloaded. Parameters are counted on a model without weights; what a step needs besides them
is counted in a step without contents (`steer.training.estimate.meta`), with few layers and with a few more, and
continued to all of them: each layer adds the same.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from steer.errors import ModelNotFound
from steer.models.base import missing_folder
from steer.models.config import LatentConfig
from steer.models.latent_model import FUSE_LIMIT, LatentModel
from steer.models.sources import resolve_base
from steer.training.estimate.meta import Peak, along, peak_of, random_model
from steer.training.estimate.steps import Step
from steer.training.heads.stage import HeadStage
from steer.training.objectives.interleaved import LatentObjective
from steer.training.optimizers import build_optimizer
from steer.training.recipe import LatentRecipe, MiniHFRecipe, PriorRecipe, ReachRecipe, TrainRecipe

# On a CPU: what the C library keeps of freed blocks; mean over four sizes of base, of 0.2 to 0.6 GiB measured.
HEAP = 0.35 * 2**30
KEPT = 2  # checkpoints that stay, see `training_arguments`
# Bytes per weight of what bitsandbytes stores: nf4 with doubly quantised scales (Dettmers et al. 2023), int8 by rows.
QUANTISED = {"4bit": 0.5 + 0.127 / 8, "8bit": 1.0}
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
    name = resolve_base(name)
    if missing_folder(name):
        raise ModelNotFound(f"no configuration of a model at {str(name)!r}: no such folder; expected one, or a hub id")
    try:
        return AutoConfig.from_pretrained(
            name, trust_remote_code=False, **{"local_files_only": Path(name).is_dir(), **options}
        )
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


def estimate_step(step: Step, config: Any, out: Path, device: torch.device) -> Estimate:
    """A step of the stages base and autoencoder on a base of a configuration.

    Args:
        step: see `steer.training.estimate.steps.steps_of`.
        config: of the base.
        out: where it will be written; need not exist.
        device: where it will run.

    Raises:
        TrainingError: the base cannot be built or counted.
    """
    train, vocabulary = step.train, config.get_text_config().vocab_size

    def peak(shorter: Any) -> Peak:
        model = step.build(shorter, "meta")
        return peak_of(model, lambda: step.loss(model, "cpu"), vocabulary=vocabulary, bf16=train.bf16)

    model, found = step.build(config, "meta"), along(config, peak)
    trained, optimizer = sum(p.numel() for p in model.parameters() if p.requires_grad), optimizer_bytes(model, train)
    if isinstance(model, LatentObjective):
        count, kept = counts(model.model)
        size = 4 if step.load_in == "float32" else 2
        adapted = [p.numel() for n, p in model.named_parameters() if n.endswith("base_layer.weight")]
        weights = {"base weights": count * size, "trained weights": 4 * kept}
        if step.load_in in QUANTISED:
            weights["base weights"] -= int(sum(adapted) * (size - QUANTISED[step.load_in]))
            # A matrix is unpacked while it is used.
            found = Peak(found.activations + 2 * max(adapted), found.logits)
    else:
        count = kept = trained
        weights = {"weights": 4 * count}
    memory = {
        **weights,
        "gradients": 4 * trained,
        "optimizer": optimizer,
        "activations": int(found.activations - found.logits),
        "logits": int(found.logits),
    }
    disk = {"checkpoints": KEPT * (4 * trained + optimizer), "model": 4 * kept}
    rows = train.batch_size * train.gradient_accumulation_steps
    sizes = (count, trained, train.steps, rows * step.tokens, rows * step.positions)
    return _finish(Estimate(step.name, str(device), *sizes, memory, None, disk, 0), out, device)


def estimate_head(
    kind: HeadStage,
    recipe: ReachRecipe | PriorRecipe,
    latent: LatentRecipe | MiniHFRecipe | LatentConfig,
    config: Any,
    out: Path,
    device: torch.device,
    *,
    rank: int,
) -> Estimate:
    """The stage of a head; encoding stories is nearly all of it.

    Args:
        kind: which head.
        recipe: its settings.
        latent: shapes of the model.
        config: of its base.
        out: where it will be written; need not exist.
        device: where it will run.
        rank: of the model's adapters.
    """
    width = config.get_text_config().hidden_size
    head, kept = kind.sizes(recipe, latent.z_dim, width)
    count, adapters = counts(random_model(config, latent, rank=rank))
    size = 4 if device.type == "cpu" else 2  # as `LatentModel.from_pretrained` loads it
    fused = count * size if count * size <= FUSE_LIMIT else 0
    passages = recipe.stories * recipe.spans
    memory = {
        "base weights": count * size + fused,
        "adapters": adapters * size,
        "head, gradients, optimizer": 16 * head,
        "latents": 4 * passages * kept,
        # A batch of 64 passages (`LatentModel.encode`), of which nothing is kept for a backward pass.
        "activations": 64 * latent.span_tokens * size * 12 * width,
    }
    disk = {"latents": 2 * passages * kept, "model": adapters * size}
    found = Estimate(kind.name, str(device), count, head, recipe.steps, 0, 0, memory, None, disk, 0)
    return _finish(found, out, device)


def optimizer_bytes(model: nn.Module, train: TrainRecipe) -> int:
    """Bytes of the optimizer's state: two numbers per parameter for AdamW, one for Muon's matrices."""
    made = build_optimizer(model, kind=train.optimizer, learning_rate=1.0, muon_learning_rate=1.0, weight_decay=0.0)
    total = 0
    for part in getattr(made, "parts", (made,)):
        numbers = 1 if isinstance(part, torch.optim.Muon) else 2
        total += sum(4 * numbers * p.numel() for group in part.param_groups for p in group["params"])
    return total


def counts(model: LatentModel) -> tuple[int, int]:
    """Parameters of a latent model's base, and of its adapters and heads."""
    base = sum(p.numel() for n, p in model.peft.named_parameters() if "lora_" not in n)
    return base, sum(p.numel() for p in model.parameters()) - base


def _finish(found: Estimate, out: Path, device: torch.device) -> Estimate:
    """Add what the place where it runs says."""
    memory = dict(found.memory)
    if device.type == "cpu":
        memory["libraries"] = int(LIBRARIES)
        if found.stage.startswith("autoencoder"):  # the other stages come back to the same sizes
            memory["heap"] = int(HEAP)
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return replace(found, memory=memory, free=free_memory(device), disk_free=shutil.disk_usage(there).free)
