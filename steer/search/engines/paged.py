"""The engine for bases whose attention can be hooked: prefixes are shared, nothing is computed twice."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor

from steer.errors import SearchError
from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.models.tokens import pad_rows
from steer.search.engines.base import Engine, SpanRequest, SpanSample
from steer.search.engines.prefix_cache import PrefixCache
from steer.search.tree import Tree
from steer.writing.cache import SpanCache

# Logits of whole spans are computed for so many numbers at once: 64 Mi of float32 are 256 MiB.
_LOGITS_AT_ONCE = 2**26


@final
class PagedEngine(Engine):
    """Key-value pages per node.

    Siblings share the pass over the token before them and their soft tokens, so that a span of S tokens behind k soft
    tokens costs about `S - 1 + (k + 1) / K` positions with K siblings of one latent.

    Args:
        model, tree: see `Engine`.
        memory: bytes for the router's pages, and as many again for the base's if fluency is asked for.
        options: see `Engine`.
    """

    kind = "paged"

    def __init__(self, model: LatentModel, tree: Tree, *, memory: int = 2 * 2**30, **options: Any) -> None:
        super().__init__(model, tree, **options)
        self.memory = memory
        self.arms = 2 if self.with_null else 1
        self.prefix = PrefixCache(model, ROUTER, tree, arms=self.arms, limit=memory)
        self._base: PrefixCache | None = None

    @property
    def forward_tokens(self) -> int:
        """See `Engine`."""
        return self.prefix.forward_tokens

    @torch.inference_mode()
    def write(self, order: SpanRequest, *, draft: bool = False) -> SpanSample:
        """See `Engine`. Rows whose paths do not fit into memory at once are written in parts."""
        parts = [self._write_part(order.rows(rows), draft) for rows in _fitting(self.prefix, order.parents)]
        return SpanSample(
            [span for part in parts for span in part.spans],
            [ended for part in parts for ended in part.ended],
            torch.cat([part.logprobs for part in parts]),
            [own for part in parts for own in part.states],
        )

    def _write_part(self, order: SpanRequest, draft: bool) -> SpanSample:
        prefix = self.prefix
        arms = 1 if draft else self.arms
        # Siblings of one latent share everything before their first token.
        heads: dict[tuple[int, bytes], int] = {}
        first: list[int] = []
        index = []
        for row, (parent, steered) in enumerate(zip(order.parents, order.from_latent.tolist(), strict=True)):
            name = (parent, order.z[row].numpy().tobytes() if steered and order.z is not None else b"")
            if name not in heads:
                heads[name] = len(first)
                first.append(row)
            index.append(heads[name])
        parents = [order.parents[row] for row in first]
        chunk = prefix.chunk(parents, self._soft(order, first), None)
        if arms == 2:
            chunk = torch.cat([chunk, prefix.chunk(parents, self.model.soft(None, len(first)), None)])
        segments, start = prefix.prefix(parents, arms)
        head = SpanCache(prefix.layers, len(chunk), chunk.shape[1])
        logits = prefix.forward(chunk, head, segments, start)[:, -1]

        spread = torch.tensor([i + arm * len(first) for arm in range(arms) for i in index], device=self.model.device)
        own = head.spread(spread, prefix.width)
        if prefix.share_alike(parents, order.parents):
            start = prefix.starts(order.parents, arms)
        else:
            segments, start = prefix.prefix(order.parents, arms)

        def step(ids: Tensor | None) -> Tensor:
            if ids is None:
                return logits[spread]
            return prefix.forward(self.model.embed(ids[:, None]), own, segments, start)[:, -1]

        drawn = self._write_span(order, self._guided(order, step) if arms == 2 else step)
        return dataclasses.replace(drawn, states=[] if draft else [own])

    def _soft(self, order: SpanRequest, rows: list[int]) -> Tensor:
        """Soft tokens of some rows, `[n, k, d]`."""
        null = self.model.soft(None, len(rows))
        if order.z is None:
            return null
        soft = self.model.soft(order.z[rows])
        return torch.where(order.from_latent[rows].to(soft.device)[:, None, None], soft, null)

    @torch.inference_mode()
    def hidden(self, parents: Sequence[int]) -> Tensor:
        """See `Engine`."""
        prefix, states = self.prefix, []
        for rows in _fitting(prefix, parents):
            own = [parents[row] for row in rows]
            chunk = prefix.chunk(own, self.model.soft(None, len(own)), None)
            segments, start = prefix.prefix(own)
            states.append(prefix.hidden(chunk, SpanCache(prefix.layers, len(own), chunk.shape[1]), segments, start))
        return torch.cat(states)

    @torch.inference_mode()
    def commit(self, draw: SpanSample, rows: Sequence[int], nodes: Sequence[int]) -> None:
        """Store the pages of nodes that may be expanded, as far as they fit; the others are computed again."""
        first = 0
        for own in draw.states:
            count = own.rows // self.arms
            chosen = [
                (r - first, n)
                for r, n in zip(rows, nodes, strict=True)
                if first <= r < first + count and not self.tree.is_complete(n)
            ]
            first += count
            if not chosen:
                continue
            keys, values = own.states()
            chosen = chosen[: self.prefix.pool.fits(keys, values)]
            picked = [r + arm * count for arm in range(self.arms) for r, _ in chosen]
            index = torch.tensor(picked, dtype=torch.long, device=self.model.device)
            self.prefix.pool.store([n for _, n in chosen], keys[:, index], values[:, index])

    @torch.inference_mode()
    def base_logprobs(self, parents: Sequence[int], spans: Sequence[Sequence[int]]) -> Tensor:
        """See `Engine`."""
        if self._base is None:
            self._base = PrefixCache(self.model, None, self.tree, limit=self.memory)
        prefix = self._base
        vocabulary = self.model.latent_config.base.vocab_size
        step = max(1, _LOGITS_AT_ONCE // (vocabulary * self.tree.span_tokens))
        parts = []
        for at in range(0, len(parents), step):
            for rows in _fitting(prefix, parents[at : at + step]):
                own = [at + row for row in rows]
                parts.append(self._base_part(prefix, [parents[i] for i in own], [spans[i] for i in own]))
        return torch.cat(parts)

    def _base_part(self, prefix: PrefixCache, parents: Sequence[int], spans: Sequence[Sequence[int]]) -> Tensor:
        targets, mask = pad_rows(spans, device=self.model.device)
        size = targets.shape[1]
        segments, start = prefix.prefix(parents)
        own = SpanCache(prefix.layers, len(spans), size)
        logits = prefix.forward(prefix.chunk(parents, None, targets[:, :-1]), own, segments, start, keep=size).float()
        logprobs = logits.gather(2, targets[..., None])[..., 0] - logits.logsumexp(2)
        return ((logprobs * mask).sum(1) / mask.sum(1)).cpu()


def _fitting(prefix: PrefixCache, parents: Sequence[int]) -> Iterator[range]:
    """Rows in parts whose paths fit into memory at once; while a part is looked at, its pages are there.

    Raises:
        SearchError: the path of a single row does not fit.
    """
    waiting = [range(len(parents))]
    while waiting:
        rows = waiting.pop()
        try:
            prefix.ensure([parents[row] for row in rows])
        except SearchError:
            if len(rows) < 2:
                raise
            half = len(rows) // 2
            waiting += [rows[half:], rows[:half]]
        else:
            yield rows
