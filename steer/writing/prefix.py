"""What stands before the next span of each row of a batch, in caches: contexts, latents and spans written so far.

A prefix gives steps, with a latent or without. What a step appends is undone by `rewind`, or kept by `extend`; so a
draft costs nothing but its tokens. The layouts keep their caches differently:

- `interleaved`: spans keep their latents, so nothing is ever computed twice. With classifier-free guidance the cache
  holds the conditional rows first and the null rows behind them, and each token costs one pass over both.
- `minihf`: MiniHF computes the whole context again for every span. Here the cache of the visible tokens is kept: behind
  a span the latent's slot is cut off again and the span's tokens are computed once behind the context, which gives the
  same numbers. The bare base writes where nothing steers, over a cache of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.writing.classifier_free import Step, guided
from steer.writing.stream import Stream


class Prefix(ABC):
    """Made by `open_prefix`."""

    @abstractmethod
    def draft_step(self) -> Step:
        """A step that writes without a latent, for a draft."""

    @abstractmethod
    def step(self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None) -> Step:
        """A step that writes the next span.

        Args:
            z: `[B, z_dim]`, or None for unguided writing.
            scale: of classifier-free guidance, a number or `[B]`; None does without.
            steered: bool `[B]`, the rows that are written from `z`, the others unguided; None for all.
        """

    @abstractmethod
    def hidden(self) -> Tensor:
        """What a draft head reads of the model, `[B, d]`; see `steer.writing.proposals.read_state`."""

    @abstractmethod
    def rewind(self) -> None:
        """Forget what steps have appended since the last `extend`."""

    @abstractmethod
    def extend(self, tokens: Tensor) -> None:
        """Keep a span: the tokens `[B, T]` that the last `step` wrote."""


def open_prefix(model: LatentModel, contexts: Sequence[Sequence[int]], spans: int, *, with_null: bool) -> Prefix:
    """The prefix of rows that begin with contexts.

    Args:
        contexts: visible token ids, at least one per row.
        spans: to make room for.
        with_null: whether classifier-free guidance will be asked for.
    """
    kind = _Interleaved if model.layout.keeps_latents else _MiniHF
    return kind(model, contexts, spans, with_null)


@final
class _Interleaved(Prefix):
    def __init__(self, model: LatentModel, contexts: Sequence[Sequence[int]], spans: int, with_null: bool) -> None:
        self.model, self.rows, self.with_null = model, len(contexts), with_null
        width = model.latent_config.soft_tokens + model.span_tokens
        self.stream = Stream(model, ROUTER, contexts, (spans + 1) * width + 1, copies=2 if with_null else 1)
        # The last kept token, not yet in the cache: it rides with the next chunk.
        self._pending: Tensor | None = None
        self._kept = self.stream.cache.length

    def draft_step(self) -> Step:
        return self.stream.step(self._chunk(self.model.soft(None, self.rows), 1))

    def step(self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None) -> Step:
        null = self.model.soft(None, self.rows)
        soft = null if z is None else self.model.soft(z)
        if steered is not None:
            soft = torch.where(steered.to(soft.device)[:, None, None], soft, null)
        if not self.with_null:
            return self.stream.step(self._chunk(soft, 1))
        # The null rows' cache must grow with the others', so scale 1 runs both; unguided rows are not extrapolated.
        scale = 1.0 if scale is None or z is None else scale
        if steered is not None:
            scale = torch.where(steered, torch.as_tensor(scale, dtype=torch.float32), 1.0).to(self.model.device)
        return guided(self.stream.step(self._chunk(torch.cat([soft, null]), 2)), scale)

    @torch.inference_mode()
    def hidden(self) -> Tensor:
        state = self.stream.hidden(self._chunk(self.model.soft(None, self.rows), 1))
        self.rewind()
        return state

    def rewind(self) -> None:
        self.stream.cache.rewind(self._kept)

    def extend(self, tokens: Tensor) -> None:
        self._pending = tokens[:, -1:]
        self._kept = self.stream.cache.length

    def _chunk(self, soft: Tensor, copies: int) -> Tensor:
        """Embeddings of the pending token and soft tokens."""
        if self._pending is None:
            return soft
        return torch.cat([self.stream.embed(self._pending).repeat(copies, 1, 1), soft], dim=1)


@final
class _MiniHF(Prefix):
    def __init__(self, model: LatentModel, contexts: Sequence[Sequence[int]], spans: int, with_null: bool) -> None:
        self.model, self.with_null = model, with_null
        capacity = (spans + 1) * model.span_tokens + 2
        # The last visible token is held back, so that every span starts with a chunk whose logits predict its first
        # token.
        self._held = torch.tensor([context[-1] for context in contexts], device=model.device)[:, None]
        self.stream = Stream(model, ROUTER, contexts, capacity)
        self.null = Stream(model, None, contexts, capacity)
        self._kept = self.stream.cache.length - 1
        self.rewind()

    def draft_step(self) -> Step:
        return self.null.step(self.null.embed(self._held))

    def step(self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None) -> Step:
        null = self.draft_step()
        if z is None:
            return null
        held = self.stream.embed(self._held)
        step = self.stream.step(torch.cat([held, self.model.soft(z)], dim=1))
        if steered is not None:
            # Scale 0 is the null arm, bit for bit.
            device = self.model.device
            per_row = torch.as_tensor(1.0 if scale is None else scale, dtype=torch.float32, device=device)
            return guided(step, torch.where(steered.to(device), per_row, 0.0), null)
        return step if scale is None or not self.with_null else guided(step, scale, null)

    @torch.inference_mode()
    def hidden(self) -> Tensor:
        state = self.null.hidden(self.null.embed(self._held))
        self.rewind()
        return state

    def rewind(self) -> None:
        for stream in (self.stream, self.null):
            stream.cache.rewind(self._kept)

    def extend(self, tokens: Tensor) -> None:
        self.rewind()
        visible = torch.cat([self._held, tokens[:, :-1]], dim=1)
        for stream in (self.stream, self.null):
            stream.forward(stream.embed(visible))
        self._held = tokens[:, -1:]
        self._kept = self.stream.cache.length
