"""Training steps on made-up tokens: counted by `steer.training.estimate.report`, or run for real and measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from steer.errors import TrainingError
from steer.heads.bottleneck import LatentHead
from steer.models.adapters import add_adapters
from steer.models.config import BaseIdentity, LatentConfig
from steer.models.latent_model import LatentModel
from steer.models.layouts import LAYOUTS
from steer.training.checkpointing import enable_checkpointing
from steer.training.objectives.interleaved import SpanObjective
from steer.training.objectives.minihf import DecoderObjective, RouterObjective
from steer.training.optimizers import build_optimizer
from steer.training.recipe import BaseRecipe, LatentRecipe, MiniHFRecipe, TrainRecipe

RUNS = 3  # of which the first, that warms up, is not timed


@dataclass(frozen=True)
class Measured:
    """What steps took.

    Attributes:
        seconds: per optimiser step.
        memory: bytes at the fullest moment: on CUDA of tensors, on a CPU of the whole process.
    """

    seconds: float
    memory: int


def base_step(model: Any, base: BaseRecipe, device: torch.device | str = "cpu") -> Callable[[], Tensor]:
    """A forward pass of the base stage on made-up tokens, as the trainer runs it."""

    def step() -> Tensor:
        ids = torch.ones(base.train.batch_size, base.block, dtype=torch.long, device=device)
        return model(input_ids=ids, labels=ids).loss

    return step


def autoencoder_step(
    objective: SpanObjective, latent: LatentRecipe, device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """A forward pass of the autoencoder stage on made-up tokens, behind the longest context.

    The parts of `SpanObjective.forward` without its choices, which depend on values.
    """

    def step() -> Tensor:
        rows, n, size = latent.train.batch_size, latent.spans, latent.span_tokens
        ids = torch.ones(rows, n, size, dtype=torch.long, device=device)
        context = torch.ones(rows, max(latent.context_lengths), dtype=torch.long, device=device)
        mean = objective.encode(ids.flatten(0, 1), ids.flatten(0, 1))
        soft = objective.model.head.soft(mean + torch.randn_like(mean)).unflatten(0, (rows, n))
        nll, _ = objective.span_losses(context, ids, ids, soft)
        return nll.sum() / ids.sum() + 0.5 * latent.beta * mean.pow(2).sum(1).mean() / size

    return step


def decoder_step(
    objective: DecoderObjective, latent: MiniHFRecipe, device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """A forward pass of MiniHF's first step on made-up tokens, no context hidden."""

    def step() -> Tensor:
        ids = torch.ones(latent.train.batch_size, latent.span_tokens, dtype=torch.long, device=device)
        mean = objective.encode(ids[:, :-1], ids[:, :-1])
        logits = objective.decode(ids, ids, mean + torch.randn_like(mean), ids)
        return _nll(logits, ids) + 0.5 * latent.beta * mean.pow(2).sum(1).mean() / latent.span_tokens

    return step


def router_step(
    objective: RouterObjective, latent: MiniHFRecipe, device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """A forward pass of MiniHF's second step on made-up tokens, behind the longest context, none hidden."""

    def step() -> Tensor:
        ids = torch.ones(latent.router.batch_size, 2 * latent.span_tokens, dtype=torch.long, device=device)
        context = torch.ones(len(ids), max(latent.context_lengths), dtype=torch.long, device=device)
        span = ids[:, : latent.span_tokens]
        with torch.no_grad():
            mean = objective.encode(span, span)
        return _nll(objective.write(context, context, mean + torch.randn_like(mean), ids), ids)

    return step


def _nll(logits: Tensor, ids: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), ids.flatten())


def probe_base(config: Any, base: BaseRecipe, device: torch.device) -> Measured:
    """Run some steps of the base stage, not compiled, on random weights."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config).train()
    if base.train.gradient_checkpointing:
        enable_checkpointing(model)
    return measure(model, base_step(model, base, device), base.train, device)


def random_model(config: Any, latent: LatentRecipe | MiniHFRecipe, device: torch.device) -> LatentModel:
    """A latent model of a configuration and a recipe, with random weights and without a tokenizer.

    Raises:
        TrainingError: the base is to be quantised, which needs its weights.
    """
    if latent.load_in not in ("float32", "bfloat16"):
        raise TrainingError(f"a base in {latent.load_in} cannot be probed without its weights; leave out --probe")
    with torch.device(device):
        base: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, latent.load_in))
        base.requires_grad_(False)
        peft = add_adapters(base, LAYOUTS[latent.layout].roles, latent.lora_rank, latent.lora_alpha)
        identity = BaseIdentity.of(base, "probe")
        with_null = LAYOUTS[latent.layout].has_null
        head = LatentHead(identity.hidden_size, latent.z_dim, latent.soft_tokens, with_null=with_null)
    head.reset(0.02)
    settings = LatentConfig(
        layout=latent.layout,
        span_tokens=latent.span_tokens,
        z_dim=latent.z_dim,
        soft_tokens=latent.soft_tokens,
        max_context=latent.max_context,
        base=identity,
    )
    return LatentModel(peft, head, settings, None)


def measure(model: Any, step: Callable[[], Tensor], train: TrainRecipe, device: torch.device) -> Measured:
    """Run some steps for real, not compiled, and time them.

    Args:
        model: what is trained, in training mode.
        step: a forward pass, see `base_step`.
        train: settings of the optimisation.
        device: where all of it is.
    """
    optimizer = build_optimizer(
        model, kind=train.optimizer, learning_rate=1e-6, muon_learning_rate=1e-6, weight_decay=0.0
    )
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    begin = 0.0
    for run in range(RUNS):
        if run == 1:
            begin = time.perf_counter()
        for _ in range(train.gradient_accumulation_steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=train.bf16):
                loss = step()
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
