"""What a stage of a recipe will take: parameters, tokens, memory by part, and disk, from configurations alone.

No weights are loaded or downloaded. Parameters are counted on a model without weights; what a step needs besides them
is counted in a step without contents (`steer.training.hollow`), with few layers and with a few more, and continued to
all of them: each layer adds the same.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from steer.config import LatentConfig
from steer.errors import ModelNotFound, TrainingError
from steer.model import FUSE_LIMIT, LatentModel
from steer.training.base_stage import base_config
from steer.training.hollow import Peak, hollow_base, hollow_model, peak_of, with_layers
from steer.training.objective import SpanObjective
from steer.training.optimizers import build_optimizer
from steer.training.probe import autoencoder_step, base_step
from steer.training.recipe import LatentRecipe, ReachRecipe, Recipe, TrainRecipe

FEW, MORE = 2, 4  # layers of the two counted steps; even, as some families take turns of two kinds of layers
# On a CPU: what the C library keeps of freed blocks; mean over four sizes of base, of 0.2 to 0.6 GiB measured.
HEAP = 0.35 * 2**30
KEPT = 2  # checkpoints that stay, see `training_arguments`
LIBRARIES = 0.52 * 2**30  # resident memory of Python, torch, transformers and PEFT before any model; measured
# Bytes per weight of what bitsandbytes stores: nf4 with doubly quantised scales (Dettmers et al. 2023), int8 by rows.
QUANTISED = {"4bit": 0.5 + 0.127 / 8, "8bit": 1.0}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Estimate:
    """What a stage takes, per process.

    Attributes:
        stage: its name.
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
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        step = base_step(model, base)
        return peak_of([model], step, vocabulary=config.get_text_config().vocab_size, bf16=train.bf16)

    model = hollow_base(config)
    count = sum(p.numel() for p in model.parameters())
    tokens = train.batch_size * train.gradient_accumulation_steps * base.block
    disk = {"checkpoints": KEPT * (4 * count + _optimizer_bytes(model, train)), "model": 4 * count}
    memory = {"weights": 4 * count, **_step_memory(model, train, _along(config, peak))}
    found = Estimate("base", str(device), count, count, train.steps, tokens, tokens, memory, None, disk, 0)
    return _finish(found, out, device)


def estimate_autoencoder(recipe: Recipe, config: Any, out: Path, device: torch.device) -> Estimate:
    """The autoencoder stage on a base of a configuration.

    Args:
        recipe: with a section `autoencoder` of layout `interleaved`.
        config: of the base.
        out: where it will be written; need not exist.
        device: where it will run.

    Raises:
        TrainingError: the base cannot be built or counted, or the layout is another.
    """
    latent = recipe.autoencoder
    if not isinstance(latent, LatentRecipe):
        raise TrainingError("memory is estimated for the layout interleaved alone")
    train = latent.train
    dtype = torch.float32 if latent.load_in == "float32" else torch.bfloat16
    vocabulary = config.get_text_config().vocab_size

    def build(of: Any) -> LatentModel:
        model = hollow_model(
            of,
            rank=latent.lora_rank,
            z_dim=latent.z_dim,
            soft_tokens=latent.soft_tokens,
            span_tokens=latent.span_tokens,
            dtype=dtype,
        )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name or name.startswith("head."))
        return model

    def peak(shorter: Any) -> Peak:
        objective = SpanObjective(build(shorter))
        objective.train()
        if train.gradient_checkpointing:
            objective.activation_checkpointing_enable()
        return peak_of([objective], autoencoder_step(objective, latent), vocabulary=vocabulary, bf16=train.bf16)

    model = build(config)
    count, trained = _base_count(model), _trained_count(model)
    adapted = [p for n, p in model.peft.named_parameters() if n.endswith("base_layer.weight")]
    inner = sum(p.numel() for p in adapted)
    weights = {"base weights": count * (4 if dtype == torch.float32 else 2), "trained weights": 4 * trained}
    found = _along(config, peak)
    if latent.load_in in QUANTISED:
        weights["base weights"] -= int(inner * (2 - QUANTISED[latent.load_in]))
        # A matrix is unpacked while it is used.
        found = Peak(found.activations + 2 * max(p.numel() for p in adapted), found.logits)
    rows = train.batch_size * train.gradient_accumulation_steps
    tokens = rows * latent.spans * latent.span_tokens
    places = rows * (max(latent.context_lengths) + latent.spans * (latent.soft_tokens + 2 * latent.span_tokens))
    narrow = BYTES[recipe.package.dtype]
    disk = {
        "checkpoints": KEPT * (4 * trained + _optimizer_bytes(model, train)),
        "model": 4 * trained,
        "package": narrow * (trained + (count if recipe.base is not None else 0)),
    }
    memory = {**weights, **_step_memory(model, train, found)}
    result = Estimate("autoencoder", str(device), count, trained, train.steps, tokens, places, memory, None, disk, 0)
    return _finish(result, out, device)


def estimate_reach(
    reach: ReachRecipe, latent: LatentConfig, config: Any, out: Path, device: torch.device, *, rank: int
) -> Estimate:
    """The reach stage: encoding stories takes nearly all of it.

    Args:
        reach: settings.
        latent: of the model.
        config: of its base.
        out: where it will be written; need not exist.
        device: where it will run.
        rank: of the model's adapters.
    """
    from steer.rewards.reach import ReachHead

    head = sum(p.numel() for p in ReachHead(reach.config("", latent.z_dim)).parameters())
    sizes: dict[str, Any] = {"rank": rank, "z_dim": latent.z_dim, "soft_tokens": latent.soft_tokens}
    model = hollow_model(config, span_tokens=latent.span_tokens, layout=latent.layout, **sizes)
    count, adapters = _base_count(model), _trained_count(model)
    size = 4 if device.type == "cpu" else 2  # as `LatentModel.from_pretrained` loads it
    fused = count * size if count * size <= FUSE_LIMIT else 0
    passages = reach.stories * reach.spans
    text = config.get_text_config()
    memory = {
        "base weights": count * size + fused,
        "adapters": adapters * size,
        "head, gradients, optimizer": 16 * head,
        "latents": 4 * passages * latent.z_dim,
        # A batch of 64 passages (`LatentModel.encode`), of which nothing is kept for a backward pass.
        "activations": 64 * latent.span_tokens * size * 12 * text.hidden_size,
    }
    disk = {"latents": 2 * passages * latent.z_dim, "model": adapters * size}
    return _finish(Estimate("reach", str(device), count, head, reach.steps, 0, 0, memory, None, disk, 0), out, device)


def _along(config: Any, peak: Callable[[Any], Peak]) -> Peak:
    """The peak of all layers, from those of few; what each layer adds is the same."""
    layers = config.get_text_config().num_hidden_layers
    if layers <= MORE + FEW:
        return peak(config)
    few, more = peak(with_layers(config, FEW)), peak(with_layers(config, MORE))
    slope = (more.activations - few.activations) / (MORE - FEW)
    return Peak(few.activations + slope * (layers - FEW), more.logits)


def _step_memory(model: nn.Module, train: TrainRecipe, peak: Peak) -> dict[str, int]:
    """What a step takes besides weights."""
    return {
        "gradients": 4 * sum(p.numel() for p in model.parameters() if p.requires_grad),
        "optimizer": _optimizer_bytes(model, train),
        "activations": int(peak.activations - peak.logits),
        "logits": int(peak.logits),
    }


def _optimizer_bytes(model: nn.Module, train: TrainRecipe) -> int:
    """Bytes of the optimizer's state: two numbers per parameter for AdamW, one for Muon's matrices."""
    made = build_optimizer(model, kind=train.optimizer, learning_rate=1.0, muon_learning_rate=1.0, weight_decay=0.0)
    total = 0
    for part in getattr(made, "parts", (made,)):
        numbers = 1 if isinstance(part, torch.optim.Muon) else 2
        total += sum(4 * numbers * p.numel() for group in part.param_groups for p in group["params"])
    return total


def _base_count(model: LatentModel) -> int:
    return sum(p.numel() for n, p in model.peft.named_parameters() if "lora_" not in n)


def _trained_count(model: LatentModel) -> int:
    return sum(p.numel() for p in model.parameters()) - _base_count(model)


def _finish(found: Estimate, out: Path, device: torch.device) -> Estimate:
    """Add what the place where it runs says."""
    memory = dict(found.memory)
    if device.type == "cpu":
        memory["libraries"] = int(LIBRARIES)
        if found.stage == "autoencoder":  # the other stages come back to the same sizes
            memory["heap"] = int(HEAP)
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return replace(found, memory=memory, free=free_memory(device), disk_free=shutil.disk_usage(there).free)
