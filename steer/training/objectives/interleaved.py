"""The loss of the autoencoder stage in the interleaved layout, and what the losses of both layouts share."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steer.evaluation.likelihood import alone, compare_interleaved, encode, interleaved_losses
from steer.models.adapters import ENCODER, switch_adapter, use_adapter
from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.training.trainer import enable_checkpointing


class LatentObjective(nn.Module, ABC):
    """What the objectives of the autoencoder stage share: passes of the base under one adapter, and the encoder.

    Args:
        model: the latent model; what is trained of it, the stage decides.
        seed: of the choices in the loss, together with the rows' indices.
        compiled: run the backbone through `torch.compile`.
    """

    def __init__(self, model: LatentModel, *, seed: int = 0, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self.seed = seed
        body = backbone(model.peft.get_base_model())
        # In a list, so that its parameters are not registered twice.
        self._run = [torch.compile(body, dynamic=False) if compiled else body]
        self._role = ENCODER

    def _hidden(self, role: str, mask: Tensor | None, **inputs: Any) -> Tensor:
        self._role = role
        with use_adapter(self.model.peft, role):
            return self._run[0](attention_mask=mask, use_cache=False, **inputs).last_hidden_state

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Trade time for memory: the base's layers are computed again in the backward pass.

        Called by `transformers.Trainer` where the recipe asks for it. A layer must be computed again with the adapter
        it was computed with, which by then is no longer in force. What is compiled cannot be told that, so the
        backbone runs as it is.
        """
        base = self.model.peft.get_base_model()
        self._run = [backbone(base)]
        enable_checkpointing(base, context_fn=lambda: (contextlib.nullcontext(), self._again(self._role)))

    gradient_checkpointing_enable = activation_checkpointing_enable

    @contextlib.contextmanager
    def _again(self, role: str) -> Iterator[None]:
        switch_adapter(self.model.peft, role)
        yield

    @abstractmethod
    def trial(self, context: Tensor, spans: Tensor) -> Tensor:
        """The loss of contexts `[B, C]` and spans `[B, n, S]` without the choices of `forward`, which look at values.

        For estimates of what a step takes.
        """

    @abstractmethod
    def compare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums for the figures of an evaluation batch, see `steer.evaluation.likelihood.summarize`."""

    def _noisy(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of posterior means `[B, z_dim]` with noise, for a trial, and the mean of their KL term."""
        return mean + torch.randn_like(mean), 0.5 * mean.pow(2).sum(1).mean()

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Posterior means `[B, z_dim]` of evidence rows `[B, S]`."""
        return encode(self.model, ids, mask, run=self._hidden)

    def generator(self, index: Tensor) -> torch.Generator:
        """What the choices in a batch are drawn from, by the index of its first row."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + int(index[0])) % 2**63)


class SpanObjective(LatentObjective):
    """Encoder and router in one pass.

    Loss: mean cross-entropy of span tokens (padding not counted) plus `beta * |mean|^2 / 2 / S` per span.

    Args:
        model: the latent model; its adapters and head are trained.
        context_lengths, isolated_prob, null_prob, null_sequence_prob, noise: see `LatentRecipe`.
        seed, compiled: see `LatentObjective`.
    """

    def __init__(
        self,
        model: LatentModel,
        *,
        context_lengths: Sequence[int] = (24, 64, 160),
        isolated_prob: float = 0.4,
        null_prob: float = 0.15,
        null_sequence_prob: float = 0.05,
        noise: float = 1.0,
        seed: int = 0,
        compiled: bool = False,
    ) -> None:
        super().__init__(model, seed=seed, compiled=compiled)
        self.context_lengths = tuple(context_lengths)
        self.isolated_prob = isolated_prob
        self.null_prob, self.null_sequence_prob = null_prob, null_sequence_prob
        self.noise = noise

    def span_losses(self, context: Tensor, spans: Tensor, span_mask: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
        """See `steer.evaluation.likelihood.interleaved_losses`."""
        return interleaved_losses(self.model, context, spans, span_mask, soft, run=self._hidden)

    def forward(
        self,
        index: Tensor,
        context: Tensor,
        spans: Tensor,
        span_mask: Tensor,
        evidence: Tensor,
        evidence_mask: Tensor,
        beta: Tensor,
    ) -> dict[str, Tensor]:
        """Training loss of a batch; see `steer.data.windows.collate` for the shapes. `beta` is a scalar tensor."""
        generator = self.generator(index)
        rows, n, size = spans.shape
        alive = span_mask[:, :, 0].flatten().float()
        mean = self.encode(evidence.flatten(0, 1), evidence_mask.flatten(0, 1))
        kl = 0.5 * mean.pow(2).sum(1)
        device = mean.device
        z = mean + self.noise * torch.randn(mean.shape, generator=generator).to(device)
        soft = self.model.head.soft(z).unflatten(0, (rows, n))
        draw = torch.rand(rows, n, generator=generator)
        nulls = (draw < self.null_prob) | (torch.rand(rows, 1, generator=generator) < self.null_sequence_prob)
        isolated = bool(torch.rand((), generator=generator) < self.isolated_prob)
        if isolated:
            nulls = torch.zeros_like(nulls)  # without context and without latent there is nothing to learn from
        null = self.model.head.null_soft(1)[None]
        soft = torch.where(nulls.to(device)[:, :, None, None], null.to(soft.dtype), soft)
        if isolated:
            nll, _ = self.span_losses(*alone(spans, span_mask, soft))
        else:
            chosen = self.context_lengths[int(torch.randint(len(self.context_lengths), (), generator=generator))]
            nll, _ = self.span_losses(context[:, context.shape[1] - chosen :], spans, span_mask, soft)
        reconstruction = nll.sum() / span_mask.sum()
        kl_mean = (kl * alive).sum() / alive.sum()
        return {"loss": reconstruction + beta * kl_mean / size, "nll": reconstruction.detach(), "kl": kl_mean.detach()}

    def trial(self, context: Tensor, spans: Tensor) -> Tensor:
        """See `LatentObjective`."""
        flat = spans.flatten(0, 1)
        z, kl = self._noisy(self.encode(flat, torch.ones_like(flat)))
        soft = self.model.head.soft(z).unflatten(0, spans.shape[:2])
        nll, _ = self.span_losses(context, spans, torch.ones_like(spans), soft)
        return nll.mean() + kl

    @torch.no_grad()
    def compare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `steer.evaluation.likelihood.compare_interleaved`."""
        return compare_interleaved(self.model, batch, run=self._hidden)
