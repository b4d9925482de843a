"""One stream of forward passes over one cache: prefilled once, extended in place, rewound for free."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from steer.models.base import backbone
from steer.writing.cache import SpanCache


class Arm:
    """One stream of forward passes over one cache: the router with or without latents, or MiniHF's bare base.

    Args:
        model: a `LatentModel`.
        role: adapter in force, None for the bare base.
        contexts: token ids per row, not all empty unless `begin` is given.
        capacity: tokens to write after the longest context.
        copies: rows are repeated so many times in the cache (2: conditional rows, then null rows); the context is
            computed once.
    """

    def __init__(
        self, model: Any, role: str | None, contexts: Sequence[Sequence[int]], capacity: int, copies: int = 1
    ) -> None:
        self.model = model
        self.role = role
        rows, width = len(contexts), max(len(c) for c in contexts)
        device = model.device
        base = model.peft.get_base_model()
        total = width + capacity
        self.cache = SpanCache(base.config.get_text_config().num_hidden_layers, rows * copies, total)
        mask = torch.ones(rows, total, dtype=torch.long)
        ids = torch.zeros(rows, width, dtype=torch.long)
        for r, context in enumerate(contexts):
            pad = width - len(context)
            mask[r, :pad] = 0
            ids[r, pad:] = torch.as_tensor(context, dtype=torch.long)
        self.padded = bool((mask == 0).any())
        self.mask = mask.to(device).repeat(copies, 1)
        self.offset = mask[:, :width].sum(1).to(device).repeat(copies)[:, None] - width
        self._embed = base.get_input_embeddings()
        if width:
            self.forward(self.embed(ids.to(device)), keep=1)
            if copies == 2:
                self.cache.copy_rows(rows)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of `[B]` or `[B, t]` token ids, as `[B, t, d]`."""
        return self._embed(ids if ids.ndim == 2 else ids[:, None])

    def forward(self, embeds: Tensor, keep: int = 1) -> Tensor:
        """Append embeddings `[n, t, d]` to the first n rows; returns logits `[n, keep, V]` of the last places."""
        return self._run(lambda base, inputs: base(**inputs, logits_to_keep=keep).logits, embeds)

    def hidden(self, embeds: Tensor) -> Tensor:
        """Append embeddings as `forward` does; returns the states `[n, d]` of the last place, after the final norm."""
        return self._run(lambda base, inputs: backbone(base)(**inputs).last_hidden_state[:, -1], embeds)

    def _run(self, call: Callable[[Any, dict[str, Any]], Tensor], embeds: Tensor) -> Tensor:
        rows, count = embeds.shape[:2]
        start = self.cache.length
        steps = torch.arange(start, start + count, device=embeds.device)
        inputs = {
            "inputs_embeds": embeds,
            "position_ids": (steps + self.offset[:rows]).clamp_min(0),
            "attention_mask": self.mask[:rows, : start + count] if self.padded else None,
            "past_key_values": self.cache,
            "use_cache": True,
        }
        with self.model.running(self.role) as base:
            return call(base, inputs)
