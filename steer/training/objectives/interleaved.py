"""The loss of the autoencoder stage, in the interleaved layout, and the figures that are watched while it falls."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from steer.errors import TrainingError
from steer.models.adapters import ENCODER, ROUTER, switch_adapter, use_adapter
from steer.models.base import additive_mask, backbone
from steer.models.latent_model import LatentModel
from steer.training.checkpointing import enable_checkpointing

ARMS = ("own", "null", "wrong")


class LatentObjective(nn.Module):
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

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Posterior means `[B, z_dim]` of evidence rows `[B, S]`."""
        full = additive_mask(mask, causal=False, dtype=self.model.dtype)
        return self.model.head.pool(self._hidden(ENCODER, full, input_ids=ids), mask)

    def generator(self, index: Tensor) -> torch.Generator:
        """What the choices in a batch are drawn from, by the index of its first row."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + int(index[0])) % 2**63)


class SpanObjective(LatentObjective):
    """Encoder and router in one pass.

    Loss: mean cross-entropy of span tokens (padding not counted) plus `beta * |mean|^2 / 2 / S` per span.

    Args:
        model: the latent model; its adapters and head are trained.
        context_lengths, isolated_share, null_share, null_sequence_share, noise: see `LatentRecipe`.
        seed, compiled: see `LatentObjective`.
    """

    def __init__(
        self,
        model: LatentModel,
        *,
        context_lengths: Sequence[int] = (24, 64, 160),
        isolated_share: float = 0.4,
        null_share: float = 0.15,
        null_sequence_share: float = 0.05,
        noise: float = 1.0,
        seed: int = 0,
        compiled: bool = False,
    ) -> None:
        super().__init__(model, seed=seed, compiled=compiled)
        self.context_lengths = tuple(context_lengths)
        self.isolated_share = isolated_share
        self.null_share, self.null_sequence_share = null_share, null_sequence_share
        self.noise = noise

    def span_losses(self, context: Tensor, spans: Tensor, span_mask: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihoods of spans behind a context, each after its soft tokens.

        Args:
            context: `[B, C]`, C may be 0.
            spans, span_mask: `[B, n, S]`; padding stands behind the story's end, where nothing that counts looks at it.
            soft: `[B, n, k, d]`.

        Returns:
            NLL in nats `[B, n, S]` (0 where masked), and whether the likeliest token is the right one, `[B, n, S]`.
        """
        n, size = spans.shape[1:]
        k, start = soft.shape[2], context.shape[1]
        tokens = self.model.embed(spans)
        behind = torch.cat([soft.to(tokens.dtype), tokens], dim=2).flatten(1, 2)
        embeds = torch.cat([self.model.embed(context), behind], dim=1) if start else behind
        hidden = self._hidden(ROUTER, None, inputs_embeds=embeds)[:, start:].unflatten(1, (n, k + size))
        logits = self.model.peft.get_base_model().get_output_embeddings()(hidden[:, :, k - 1 : k + size - 1]).float()
        nll = functional.cross_entropy(logits.flatten(0, 2), spans.flatten(), reduction="none").view_as(spans)
        right = logits.argmax(-1) == spans
        return nll * span_mask, right & span_mask.bool()

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
        """Training loss of a batch; see `steer.data.windows.SpanBatch` for the shapes. `beta` is a scalar tensor."""
        generator = self.generator(index)
        rows, n, size = spans.shape
        alive = span_mask[:, :, 0].flatten().float()
        safe_mask = evidence_mask.flatten(0, 1).clone()
        safe_mask[:, 0] = 1  # an empty span is not counted, but must not divide by zero
        mean = self.encode(evidence.flatten(0, 1), safe_mask)
        kl = 0.5 * mean.pow(2).sum(1)
        device = mean.device
        z = mean + self.noise * torch.randn(mean.shape, generator=generator).to(device)
        soft = self.model.head.soft(z).unflatten(0, (rows, n))
        draw = torch.rand(rows, n, generator=generator)
        nulls = (draw < self.null_share) | (torch.rand(rows, 1, generator=generator) < self.null_sequence_share)
        isolated = bool(torch.rand((), generator=generator) < self.isolated_share)
        if isolated:
            nulls = torch.zeros_like(nulls)  # without context and without latent there is nothing to learn from
        null = self.model.head.null_soft(1)[None]
        soft = torch.where(nulls.to(device)[:, :, None, None], null.to(soft.dtype), soft)
        if isolated:
            nll, _ = self._alone(spans, span_mask, soft)
        else:
            chosen = self.context_lengths[int(torch.randint(len(self.context_lengths), (), generator=generator))]
            nll, _ = self.span_losses(context[:, context.shape[1] - chosen :], spans, span_mask, soft)
        reconstruction = nll.sum() / span_mask.sum()
        kl_mean = (kl * alive).sum() / alive.sum()
        return {"loss": reconstruction + beta * kl_mean / size, "nll": reconstruction.detach(), "kl": kl_mean.detach()}

    def _alone(self, spans: Tensor, span_mask: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
        """`span_losses` of every span by itself, without context."""
        return self.span_losses(
            spans.new_zeros(spans.shape[0] * spans.shape[1], 0),
            *(t.flatten(0, 1)[:, None] for t in (spans, span_mask, soft)),
        )

    @torch.no_grad()
    def compare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums for the figures of one batch: NLL with own, null and another span's latent, with context and without.

        Accuracy; KL; moments.

        The encoder sees the whole spans, and latents carry no noise.
        """
        spans, span_mask = batch["spans"], batch["span_mask"]
        rows, n, size = spans.shape
        alive = span_mask[:, :, 0].bool()
        safe_mask = span_mask.flatten(0, 1).clone()
        safe_mask[:, 0] = 1
        mean = self.encode(spans.flatten(0, 1), safe_mask)
        z = {"own": mean, "null": None, "wrong": mean[of_other_rows(alive)]}
        out: dict[str, Tensor] = {"tokens": span_mask.sum().float(), "spans": alive.sum().float()}
        for arm, latent in z.items():
            soft = self.model.head.null_soft(rows * n) if latent is None else self.model.head.soft(latent)
            soft = soft.unflatten(0, (rows, n))
            nll, right = self.span_losses(batch["context"], spans, span_mask, soft)
            out[f"nll_{arm}"], out[f"right_{arm}"] = nll.sum(), right.float().sum()
            nll, right = self._alone(spans, span_mask, soft)
            out[f"alone_{arm}"], out[f"alone_right_{arm}"] = nll.sum(), right.float().sum()
        return out | latent_sums(mean, alive)


def latent_sums(mean: Tensor, alive: Tensor) -> dict[str, Tensor]:
    """Sums of KL and moments, float64, over latents `[rows * n, z_dim]` of spans that hold text (`alive [rows, n]`)."""
    chosen = mean[alive.flatten()].double()
    return {
        "kl": 0.5 * chosen.pow(2).sum(),
        "sum": chosen.sum(0),
        "square": chosen.pow(2).sum(0),
        "norm": chosen.norm(dim=1).sum(),
    }


def of_other_rows(alive: Tensor) -> Tensor:
    """For each span the number of a living span of another row, whose latent is the wrong one for it.

    Args:
        alive: `[rows, n]` bool, the spans that hold text.

    Returns:
        `[rows * n]` int64 on the same device; a span that is not alive has its own number.

    Raises:
        TrainingError: only one row holds text.
    """
    rows, n = alive.shape
    owner = torch.arange(rows, device=alive.device).repeat_interleave(n)
    living = alive.flatten().nonzero().squeeze(1)
    order = torch.arange(rows * n, device=alive.device)
    # The n-th one before is of another row, unless the count goes round all rows and comes back to its own.
    order[living] = living.roll(n)
    for row in owner[living][owner[order[living]] == owner[living]].unique():
        own, others = living[owner[living] == row], living[owner[living] != row]
        if not len(others):
            raise TrainingError(f"{rows} rows to compare hold text in only one; latents are compared with other rows'")
        order[own] = others[torch.arange(len(own), device=alive.device) % len(others)]
    return order


def summarize(parts: list[dict[str, Tensor]], span_tokens: int) -> dict[str, float]:
    """Figures from the sums of `SpanObjective.compare`.

    Returns:
        `nll_own|null|wrong` in context and `alone_own|null|wrong` without, nats per token; `accuracy` (own latent, with
        context) and `alone_accuracy`, shares; `kl`, nats per span; `active_units`, latent dimensions whose mean varies
        by more than 0.01 (Burda et al. 2016); `latent_norm`.
    """
    total = {key: torch.stack([part[key] for part in parts]).sum(0) for key in parts[0]}
    tokens, spans = float(total["tokens"]), float(total["spans"])
    variance: Tensor = total["square"] / spans - (total["sum"] / spans) ** 2
    figures = {f"nll_{arm}": float(total[f"nll_{arm}"]) / tokens for arm in ARMS}
    figures |= {f"alone_{arm}": float(total[f"alone_{arm}"]) / tokens for arm in ARMS}
    figures |= {
        "accuracy": float(total["right_own"]) / tokens,
        "alone_accuracy": float(total["alone_right_own"]) / tokens,
    }
    figures |= {
        "kl": float(total["kl"]) / spans,
        "active_units": float(torch.count_nonzero(variance > 0.01)),
        "latent_norm": float(total["norm"]) / spans,
    }
    return figures
