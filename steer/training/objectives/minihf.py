"""The losses of MiniHF's two stages, which make a BigVAE: `[z][context][span]`, then `[context][z][span + next span]`.

Restated from MiniHF's `train_vae_overlap.py` (stage 1, encoder and decoder) and `train_vae_router.py` (stage 2, router
on the frozen encoder). Taken over as they are: the lengths of what the encoder sees, the weights of tokens, dropped
contexts whose slots stay, positions that count dropped slots, noise of variance 1 in both stages, and a KL term in the
first alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from steer.evaluation.likelihood import compare_router, compare_spans, span_logits
from steer.models.adapters import DECODER, ROUTER
from steer.models.base import additive_mask
from steer.models.latent_model import LatentModel
from steer.training.objectives.interleaved import LatentObjective

HEAD_WEIGHT, TAIL_WEIGHT = 0.05, 0.15


def token_weights(size: int) -> Tensor:
    """`[size]` float32: what each token of a span counts in stage 1.

    The first eighth counts 0.05 (context tells it), the last eighth 0.15 (nothing after it needs it), the rest 1.
    """
    edge = size // 8
    weights = torch.ones(size)
    weights[:edge] = HEAD_WEIGHT
    weights[size - edge :] = TAIL_WEIGHT
    return weights


class MiniHFObjective(LatentObjective):
    """What both stages share.

    Args:
        model: a latent model of layout `minihf`.
        context_drop: share of rows whose context is hidden; its slots stay, with token 0.
        noise: standard deviation of the posterior noise.
        seed: of the choices in the loss, together with the rows' indices.
        compiled: run the backbone through `torch.compile`.
    """

    def __init__(
        self,
        model: LatentModel,
        *,
        context_drop: float = 0.5,
        noise: float = 1.0,
        seed: int = 0,
        compiled: bool = False,
    ) -> None:
        super().__init__(model, seed=seed, compiled=compiled)
        self.context_drop, self.noise = context_drop, noise

    def _drop(self, context: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A context `[B, C]` with some rows hidden, and its mask."""
        kept = (torch.rand(len(context), 1, generator=generator) >= self.context_drop).to(context.device)
        return context * kept, kept.long().expand_as(context)

    def _sample(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        return mean + self.noise * torch.randn(mean.shape, generator=generator).to(mean.device)

    def _logits(self, role: str, embeds: Tensor, mask: Tensor, keep: int) -> Tensor:
        """Logits `[B, keep, V]` (float32) of the last places of `[B, T, d]`, positions 0..T-1 whatever is masked."""
        full = additive_mask(mask, causal=True, dtype=self.model.dtype)
        hidden = self._hidden(role, full, inputs_embeds=embeds)[:, -keep:]
        return self.model.peft.get_base_model().get_output_embeddings()(hidden).float()


class DecoderObjective(MiniHFObjective):
    """Stage 1: encoder and decoder, `[z][context][span]` with as many context slots as a span has tokens.

    The first token of the span is predicted from the last context slot, and the encoder does not see the span's last
    token, as in MiniHF (whose input of the decoder is what the encoder sees).
    """

    def decode(self, context: Tensor, context_mask: Tensor, z: Tensor, span: Tensor) -> Tensor:
        """Logits `[B, S, V]` of spans `[B, S]` behind latents `[B, z_dim]` and contexts `[B, C]`."""
        soft = self.model.head.soft(z)
        tokens = self.model.embed(torch.cat([context, span[:, :-1]], dim=1))
        ones = context_mask.new_ones(len(span), 1)
        mask = torch.cat([ones, context_mask, ones.expand(-1, span.shape[1] - 1)], dim=1)
        return self._logits(DECODER, torch.cat([soft.to(tokens.dtype), tokens], dim=1), mask, span.shape[1])

    def forward(
        self, index: Tensor, context: Tensor, spans: Tensor, span_mask: Tensor, beta: Tensor, **_: Tensor
    ) -> dict[str, Tensor]:
        """Training loss of a batch of one span per row.

        Cross-entropy, weighted by `token_weights`, plus `beta * |mean|^2 / 2` per span; both are sums over the batch,
        divided by the sum of the weights.

        Args:
            index: `[B]`, of the rows.
            context: `[B, S]`.
            spans, span_mask: `[B, 1, S]`.
            beta: scalar.
            **_: the encoder's evidence, which is the span here.
        """
        generator = self.generator(index)
        span, mask = spans[:, 0], span_mask[:, 0]
        mean = self.encode(span[:, :-1], mask[:, :-1])
        kl = 0.5 * mean.pow(2).sum(1)
        hidden_context, context_mask = self._drop(context, generator)
        logits = self.decode(hidden_context, context_mask, self._sample(mean, generator), span)
        nll = functional.cross_entropy(logits.flatten(0, 1), span.flatten(), reduction="none").view_as(span)
        weights = mask * token_weights(span.shape[1]).to(span.device)
        reconstruction = (nll * weights).sum() / weights.sum()
        loss = reconstruction + beta * kl.sum() / weights.sum()
        return {"loss": loss, "nll": reconstruction.detach(), "kl": kl.mean().detach()}

    def trial(self, context: Tensor, spans: Tensor) -> Tensor:
        """See `LatentObjective`; no context is hidden."""
        span, ones = spans[:, 0], torch.ones_like(spans[:, 0])
        z, kl = self._noisy(self.encode(span[:, :-1], ones[:, :-1]))
        logits = self.decode(context, torch.ones_like(context), z, span)
        return functional.cross_entropy(logits.flatten(0, 1), span.flatten()) + kl

    @torch.no_grad()
    def compare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `steer.evaluation.likelihood.compare_spans`; without context its slots are hidden, as in training."""

        def write(context: Tensor, z: Tensor | None, span: Tensor) -> Tensor:
            if z is None:
                return span_logits(self.model, context, None, span)
            slots = context[:, -span.shape[1] :] if context.shape[1] else torch.zeros_like(span)
            mask = torch.full_like(slots, int(context.shape[1] > 0))
            return self.decode(slots, mask, z, span)

        return compare_spans(self.model, write, batch)


class RouterObjective(MiniHFObjective):
    """Stage 2: the router alone, `[context][z][span + next span]`, `z` from the frozen encoder.

    Args:
        model: see `MiniHFObjective`.
        context_lengths: tokens of context, drawn per batch. MiniHF draws any length its window has room for; a few
            lengths keep the number of compiled graphs small.
        **options: `context_drop`, `noise`, `seed`, `compiled`, see `MiniHFObjective`.
    """

    def __init__(self, model: LatentModel, *, context_lengths: Sequence[int], **options: float) -> None:
        super().__init__(model, **options)  # type: ignore[arg-type]
        self.context_lengths = tuple(context_lengths)

    def write(self, context: Tensor, context_mask: Tensor, z: Tensor, target: Tensor) -> Tensor:
        """Logits `[B, T, V]` of what follows, `[B, T]`, behind contexts `[B, C]` and latents `[B, z_dim]`."""
        tokens = self.model.embed(torch.cat([context, target[:, :-1]], dim=1))
        places = context.shape[1]
        embeds = torch.cat([tokens[:, :places], self.model.head.soft(z).to(tokens.dtype), tokens[:, places:]], dim=1)
        mask = torch.cat([context_mask, torch.ones_like(target)], dim=1)
        return self._logits(ROUTER, embeds, mask, target.shape[1])

    def forward(
        self, index: Tensor, context: Tensor, spans: Tensor, span_mask: Tensor, **_: Tensor
    ) -> dict[str, Tensor]:
        """Training loss of a batch of two spans per row: the mean cross-entropy over both.

        Args:
            index: `[B]`, of the rows.
            context: `[B, C]`, at least as long as the longest of `context_lengths`.
            spans, span_mask: `[B, 2, S]`; the first is what `z` is of.
            **_: the encoder's evidence, which is the span here, and beta: what is frozen has no KL term.
        """
        generator = self.generator(index)
        with torch.no_grad():
            mean = self.encode(spans[:, 0], span_mask[:, 0])
        z = self._sample(mean, generator)
        chosen = self.context_lengths[int(torch.randint(len(self.context_lengths), (), generator=generator))]
        before, before_mask = self._drop(context[:, context.shape[1] - chosen :], generator)
        target, target_mask = spans.flatten(1), span_mask.flatten(1)
        logits = self.write(before, before_mask, z, target)
        nll = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        loss = (nll * target_mask).sum() / target_mask.sum()
        return {"loss": loss, "nll": loss.detach(), "kl": 0.5 * mean.pow(2).sum(1).mean()}

    def trial(self, context: Tensor, spans: Tensor) -> Tensor:
        """See `LatentObjective`; no context is hidden."""
        span, target = spans[:, 0], spans.flatten(1)
        with torch.no_grad():
            z, _ = self._noisy(self.encode(span, torch.ones_like(span)))
        logits = self.write(context, torch.ones_like(context), z, target)
        return functional.cross_entropy(logits.flatten(0, 1), target.flatten())

    def compare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `compare_router`."""
        return compare_router(self.model, batch)
