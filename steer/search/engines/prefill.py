"""The engine for every other base and for BigVAE's layout: each expansion computes its prefixes again.

It needs nothing of a base but `inputs_embeds` and a cache of the base's own kind, so it serves sliding windows,
recurrent layers and attention that cannot be exchanged. It is correct and slow; `PagedEngine` is tested against it.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from steer.models.adapters import ROUTER
from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.models.likelihood import mean_logprobs
from steer.search.engines.base import Engine, SpanRequest, SpanSample
from steer.search.tree import Tree
from steer.writing.classifier_free import Step


@final
class PrefillEngine(Engine):
    """Nothing is kept between expansions.

    Args:
        model, tree: see `Engine`.
        reason: why prefixes are not shared, for people.
        options: see `Engine`.
    """

    kind = "prefill"

    def __init__(self, model: LatentModel, tree: Tree, *, reason: str = "", **options: Any) -> None:
        super().__init__(model, tree, **options)
        self.reason = reason
        self._computed = 0

    @property
    def forward_tokens(self) -> int:
        """See `Engine`."""
        return self._computed

    @torch.inference_mode()
    def write(self, order: SpanRequest, *, draft: bool = False) -> SpanSample:
        """See `Engine`."""
        # Without padding no base can go wrong, so rows go by the length of their prefix.
        by_length: dict[tuple[int, int, bool], list[int]] = {}
        for row, (parent, steered) in enumerate(zip(order.parents, order.from_latent.tolist(), strict=True)):
            # In BigVAE's layout a row without latent is another model with another prefix.
            kind = steered and not self.model.layout.keeps_latents
            length = len(self.tree.visible(parent))
            by_length.setdefault((length, int(self.tree.depth[parent]), kind), []).append(row)
        spans: list[list[int]] = [[] for _ in order.parents]
        ended = [False] * len(spans)
        logprobs = torch.zeros(len(spans))
        for rows in by_length.values():
            part = self._write_part(order.rows(rows), draft)
            for at, row in enumerate(rows):
                spans[row], ended[row], logprobs[row] = part.spans[at], part.ended[at], part.logprobs[at]
        return SpanSample(spans, ended, logprobs)

    def _write_part(self, order: SpanRequest, draft: bool) -> SpanSample:
        """Rows whose prefixes are of one length (and, in BigVAE's layout, all with a latent or all without)."""
        embeds, role = self._prefix(order, null=False)
        step = _Stream(self, role).step(embeds)
        if self.with_null and not draft:
            embeds, role = self._prefix(order, null=True)
            step = self._guided(order, step, _Stream(self, role).step(embeds))
        return self._write_span(order, step)

    def _prefix(self, order: SpanRequest, *, null: bool) -> tuple[Tensor, str | None]:
        """Embeddings `[R, L, d]` of all that stands before the spans, and the role that reads them."""
        model, tree, steered = self.model, self.tree, order.from_latent
        if not self.model.layout.keeps_latents:
            visible = torch.tensor([tree.visible(p) for p in order.parents], device=model.device)
            if null or not bool(steered.any()):
                return model.embed(visible), None
            assert order.z is not None
            return torch.cat([model.embed(visible), model.soft(order.z)], dim=1), ROUTER
        rows = []
        for row, parent in enumerate(order.parents):
            parts = [model.embed(torch.tensor([tree.context(parent)], device=model.device))]
            for node in tree.path(parent):
                z = torch.as_tensor(tree.written_from[node][None])
                parts.append(model.soft(None if null or not bool(z.any()) else z))
                parts.append(model.embed(torch.tensor([tree.span(node)], device=model.device)))
            own = order.z[row : row + 1] if order.z is not None and bool(steered[row]) and not null else None
            rows.append(torch.cat([*parts, model.soft(own)], dim=1))
        return torch.cat(rows), ROUTER

    @torch.inference_mode()
    def hidden(self, parents: Sequence[int]) -> Tensor:
        """See `Engine`."""
        states = []
        for parent in parents:
            embeds, role = self._prefix(SpanRequest([parent], [0]), null=False)
            states.append(_Stream(self, role).hidden(embeds))
        return torch.cat(states)

    @torch.inference_mode()
    def base_logprobs(self, parents: Sequence[int], spans: Sequence[Sequence[int]]) -> Tensor:
        """See `Engine`."""
        return mean_logprobs(self.model, [self.tree.visible(parent) for parent in parents], spans)


class _Stream:
    """Forward passes of one role over one cache of the base's own kind.

    A base that hands out no cache (RecurrentGemma keeps its states in its layers, where two streams would mix them up)
    computes everything again for every token.
    """

    def __init__(self, engine: PrefillEngine, role: str | None) -> None:
        self._engine, self._role = engine, role
        self._cache: Any = None
        self._before: Tensor | None = None  # the embeddings so far, where there is no cache

    def step(self, start: Tensor) -> Step:
        """A step that first appends embeddings `start` `[R, q, d]`, and then a token per row."""
        embed = self._engine.model.embed
        return lambda ids: self._append(start if ids is None else embed(ids[:, None]))

    def _append(self, embeds: Tensor) -> Tensor:
        """Append embeddings `[R, q, d]`; logits `[R, V]` of the last place."""
        if self._before is not None:
            embeds = self._before = torch.cat([self._before, embeds], dim=1)
        out = self._forward(embeds, lambda base, inputs: base(**inputs, logits_to_keep=1))
        self._cache = getattr(out, "past_key_values", None)
        if self._cache is None:
            self._before = embeds
        return out.logits[:, -1]

    def hidden(self, embeds: Tensor) -> Tensor:
        """The states `[R, d]` of the last of `[R, q, d]` embeddings, the first ones, after the final norm."""
        return self._forward(embeds, lambda base, inputs: backbone(base)(**inputs)).last_hidden_state[:, -1]

    def _forward(self, embeds: Tensor, call: Callable[[Any, dict[str, Any]], Any]) -> Any:
        model = self._engine.model
        self._engine._computed += embeds.shape[0] * embeds.shape[1]
        inputs = {"inputs_embeds": embeds, "past_key_values": self._cache, "use_cache": self._before is None}
        with model.running(self._role) as base:
            return call(base, inputs)
