"""One role's forward passes over a tree: a root's prompt once, a page per node, and what a batch's rows share."""

import copy
import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from steer.models.adapters import ROUTER, switch_adapter
from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.search.engines.attention import Segment, register
from steer.search.engines.pages import PagePool
from steer.search.tree import Tree
from steer.writing.cache import SpanCache


def hooked_copy(model: LatentModel, role: str | None) -> Any:
    """A copy of the base under a role that attends over segments, made once per model.

    All weights are shared; it costs no memory to speak of. An adapter that is not merged in is in force for good, so
    the copy has no state and may run in any thread.
    """
    return model.cached(("hooked", role, model.fuse), lambda: _copy(model, role))


def _copy(model: LatentModel, role: str | None) -> Any:
    source = model.fused(role) if model.fuse else model.peft
    clone: Any = copy.deepcopy(source, {id(p): p for p in source.parameters()})
    if not model.fuse:
        if role is None:
            clone = clone.unload()
        else:
            switch_adapter(clone, role)
            clone = clone.get_base_model()
    clone.set_attn_implementation(register())
    return clone.eval()


def run_lengths(ids: Sequence[int]) -> tuple[list[int], int]:
    """Rows as groups of equal size: the id of each group, and the size, the greatest that divides every run of ids."""
    runs: list[tuple[int, int]] = []
    for i in ids:
        if runs and runs[-1][0] == i:
            runs[-1] = (i, runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    size = math.gcd(*(count for _, count in runs))
    return [i for i, count in runs for _ in range(count // size)], size


@final
class PrefixCache:
    """A role of the model over a tree.

    A node's page holds the keys and values of the token before it (the last of its parent, which no pass had as input
    yet), of its soft tokens, and of its own tokens but the last.

    Args:
        model: a `LatentModel` of the `interleaved` layout.
        role: the router, or None for the bare base.
        tree: nodes are read from it.
        arms: 1, or 2 with a null arm for classifier-free guidance: the same tokens, every latent the null latent.
        limit: bytes for pages.

    Attributes:
        forward_tokens: positions computed so far.
    """

    def __init__(
        self, model: LatentModel, role: str | None, tree: Tree, *, arms: int = 1, limit: int = 2 * 2**30
    ) -> None:
        self.model, self.role, self.tree, self.arms = model, role, tree, arms
        self.module = hooked_copy(model, role)
        self.soft = model.latent_config.soft_tokens if role == ROUTER else 0
        self.width = self.soft + tree.span_tokens
        self.layers = model.peft.get_base_model().config.get_text_config().num_hidden_layers
        self.pool = PagePool(self.width, arms, limit)
        self.forward_tokens = 0
        self._prompts: dict[int, tuple[Tensor, Tensor]] = {}

    # -- passes ------------------------------------------------------------------------------------------------------

    def forward(
        self, embeds: Tensor, own: SpanCache, segments: list[list[Segment]] | None, start: Tensor, keep: int = 1
    ) -> Tensor:
        """Append embeddings `[R, q, d]` to the rows' own tokens; logits `[R, keep, V]` of the last places.

        Args:
            embeds: `[R, q, d]`.
            own: the rows' cache.
            segments: what stands before, see `prefix`.
            start: int64 `[R, 1]`, position of each row's first own token.
            keep: last places to compute logits of.
        """
        inputs = self._inputs(embeds, own, segments, start)
        return self.module(**inputs, logits_to_keep=keep).logits

    def hidden(self, embeds: Tensor, own: SpanCache, segments: list[list[Segment]] | None, start: Tensor) -> Tensor:
        """Append embeddings as `forward` does; the states `[R, d]` of the last place, after the final norm."""
        inputs = self._inputs(embeds, own, segments, start)
        return backbone(self.module)(**inputs).last_hidden_state[:, -1]

    def _inputs(
        self, embeds: Tensor, own: SpanCache, segments: list[list[Segment]] | None, start: Tensor
    ) -> dict[str, Any]:
        rows, count = embeds.shape[:2]
        self.forward_tokens += rows * count
        steps = torch.arange(own.length, own.length + count, device=embeds.device)
        return {
            "inputs_embeds": embeds,
            "position_ids": start + steps,
            "past_key_values": own,
            "use_cache": True,
            "shared_segments": segments,
        }

    def prefix(self, parents: Sequence[int], arms: int = 1) -> tuple[list[list[Segment]], Tensor]:
        """What children of these nodes see before their own tokens, once per group of equal neighbours.

        Args:
            parents: one per row, equal ones side by side; their pages must be there, see `ensure`.
            arms: how many arms follow each other in the batch.

        Returns:
            Segments per layer, and the position `[arms * R, 1]` of each row's first own token.
        """
        segments: list[list[Segment]] = [[] for _ in range(self.layers)]
        roots = [int(self.tree.root[p]) for p in parents]
        for states in (self._prompt_states(roots, arms), self._path_states(parents, arms)):
            if states is not None:
                keys, values, mask = states
                for layer in range(self.layers):
                    segments[layer].append(Segment(keys[layer], values[layer], mask))
        return segments, self.starts(parents, arms)

    def starts(self, parents: Sequence[int], arms: int = 1) -> Tensor:
        """Position `[arms * R, 1]` of the first own token of each child of these nodes."""
        depths = [len(self.tree.context(p)) - 1 + int(self.tree.depth[p]) * self.width for p in parents]
        return torch.tensor(depths * arms, device=self.model.device)[:, None]

    def share_alike(self, parents: Sequence[int], others: Sequence[int]) -> bool:
        """Whether children of both lists of nodes see the same segments, so that `prefix` of one serves the other."""
        roots = [[int(self.tree.root[p]) for p in ids] for ids in (parents, others)]
        return (
            run_lengths(parents)[0] == run_lengths(others)[0] and run_lengths(roots[0])[0] == run_lengths(roots[1])[0]
        )

    def chunk(self, parents: Sequence[int], soft: Tensor | None, tokens: Tensor | None) -> Tensor:
        """Embeddings of the token before each span, its soft tokens `[R, k, d]`, and given tokens `[R, t]`."""
        pending = torch.tensor([[self._last_token(p)] for p in parents], device=self.model.device)
        parts = [self.model.embed(pending)]
        if soft is not None:
            parts.append(soft)
        if tokens is not None:
            parts.append(self.model.embed(tokens))
        return torch.cat(parts, dim=1)

    def ensure(self, nodes: Sequence[int]) -> None:
        """See to it that all pages on the paths to these nodes are there, computing from tokens what is missing.

        Raises:
            SearchError: they do not fit into the pool at once.
        """
        wanted = {n for node in set(nodes) for n in self.tree.path(node)}
        self.pool.check(len(wanted))
        missing = sorted(n for n in wanted if n not in self.pool)
        for depth in sorted({int(self.tree.depth[n]) for n in missing}):
            level = sorted((n for n in missing if self.tree.depth[n] == depth), key=lambda n: int(self.tree.parent[n]))
            for at in range(0, len(level), 64):
                self._rebuild(level[at : at + 64], keep=sorted(wanted))
        self.pool.touch(sorted(wanted))

    @torch.inference_mode()
    def _rebuild(self, nodes: list[int], keep: Sequence[int]) -> None:
        parents = [int(self.tree.parent[n]) for n in nodes]
        tokens = torch.as_tensor(self.tree.tokens[nodes, :-1], dtype=torch.long, device=self.model.device)
        soft = None
        if self.soft:
            z = torch.as_tensor(self.tree.written_from[nodes], device=self.model.device)
            null = self.model.soft(None, len(nodes))
            soft = torch.where(z.any(dim=1)[:, None, None], self.model.soft(z), null)
        chunk = self.chunk(parents, soft, tokens)
        if self.arms == 2:
            chunk = torch.cat([chunk, self.chunk(parents, self.model.soft(None, len(nodes)), tokens)])
        segments, start = self.prefix(parents, self.arms)
        own = SpanCache(self.layers, len(chunk), self.width)
        self.forward(chunk, own, segments, start)
        self.pool.store(nodes, *own.states(), keep=keep)

    # -- what is shared ----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _prompt(self, root: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values `[layers, 1, heads, L - 1, head_dim]` of a root's context without its last token."""
        context = self.tree.context(root)[:-1]
        if not context:
            return None
        if root not in self._prompts:
            ids = torch.tensor([context], device=self.model.device)
            own = SpanCache(self.layers, 1, len(context))
            self.forward(self.model.embed(ids), own, None, torch.zeros(1, 1, dtype=torch.long, device=ids.device))
            self._prompts[root] = own.states()
        return self._prompts[root]

    def _prompt_states(self, roots: Sequence[int], arms: int) -> tuple[Tensor, Tensor, Tensor | None] | None:
        prompts = {r: self._prompt(r) for r in dict.fromkeys(roots)}
        if len(prompts) == 1:
            only = next(iter(prompts.values()))
            return None if only is None else (*only, None)
        longest = max(0 if p is None else p[0].shape[3] for p in prompts.values())
        if not longest:
            return None
        like = next(p for p in prompts.values() if p is not None)
        groups = run_lengths(roots)[0]
        shape = (self.layers, len(groups), like[0].shape[2], longest)
        keys = like[0].new_zeros((*shape, like[0].shape[4]))
        values = like[1].new_zeros((*shape, like[1].shape[4]))
        mask = torch.zeros(len(groups), 1, 1, longest, device=keys.device)
        for g, root in enumerate(groups):
            prompt = prompts[root]
            length = 0 if prompt is None else prompt[0].shape[3]
            mask[g, ..., length:] = -torch.inf
            if prompt is not None:
                keys[:, g, :, :length], values[:, g, :, :length] = prompt[0][:, 0], prompt[1][:, 0]
        keys, values = (x.repeat(1, arms, 1, 1, 1) for x in (keys, values))
        return keys, values, None if bool((mask == 0).all()) else mask.repeat(arms, 1, 1, 1)

    def _path_states(self, parents: Sequence[int], arms: int) -> tuple[Tensor, Tensor, Tensor | None] | None:
        groups = run_lengths(parents)[0]
        depths = np.array([self.tree.depth[p] for p in groups])
        deepest = int(depths.max())
        if not deepest:
            return None
        paths = [self.tree.path(p) for p in groups]
        some = next(path[0] for path in paths if path)
        # Shorter paths are padded with some page, which is then masked.
        padded = [path + [some] * (deepest - len(path)) for path in paths]
        states = [self.pool.gather(padded, arm) for arm in range(arms)]
        keys, values = (torch.cat(parts, dim=1) if arms > 1 else parts[0] for parts in zip(*states, strict=True))
        if int(depths.min()) == deepest:
            return keys, values, None
        place = torch.arange(deepest * self.width, device=keys.device)
        beyond = place[None] >= torch.as_tensor(depths * self.width, device=keys.device)[:, None]
        mask = torch.zeros(beyond.shape, device=keys.device).masked_fill(beyond, -torch.inf)[:, None, None]
        return keys, values, mask.repeat(arms, 1, 1, 1)

    def _last_token(self, node: int) -> int:
        if self.tree.parent[node] < 0:
            return self.tree.context(node)[-1]
        return int(self.tree.tokens[node, self.tree.n_tokens[node] - 1])
