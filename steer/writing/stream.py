"""One stream of forward passes over one cache: prefilled once, extended in place, rewound for free."""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.models.tokens import pad_rows
from steer.writing.cache import SpanCache
from steer.writing.classifier_free import Step


@final
class Stream:
    """Forward passes of one role over one cache.

    Args:
        role: adapter in force, None for the bare base.
        contexts: token ids per row, padded on the left; all may be empty.
        capacity: positions to make room for behind the longest context.
        copies: rows are repeated so many times in the cache (2: conditional rows, then null rows); the context is
            computed once.
    """

    def __init__(
        self,
        model: LatentModel,
        role: str | None,
        contexts: Sequence[Sequence[int]],
        capacity: int,
        copies: int = 1,
    ) -> None:
        self.model = model
        self.role = role
        base = model.peft.get_base_model()
        ids, seen = pad_rows(contexts, side="left", device=model.device)
        rows, width = ids.shape
        self.cache = SpanCache(base.config.get_text_config().num_hidden_layers, rows * copies, width + capacity)
        self.mask = torch.nn.functional.pad(seen, (0, capacity), value=1).repeat(copies, 1)
        self.padded = not bool(seen.all())
        self.offset = seen.sum(1).repeat(copies)[:, None] - width
        self._embed = base.get_input_embeddings()
        if width:
            self.forward(self.embed(ids), keep=1)
            if copies == 2:
                self.cache.copy_rows(rows)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of `[B]` or `[B, t]` token ids, as `[B, t, d]`."""
        return self._embed(ids if ids.ndim == 2 else ids[:, None])

    def step(self, start: Tensor) -> Step:
        """A step that first appends embeddings `start` `[n, t, d]`, and then a token per row."""
        return lambda ids: self.forward(start if ids is None else self.embed(ids))[:, -1]

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
