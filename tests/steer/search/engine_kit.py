"""Growing trees with an engine alone, and full passes to compare with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.noise import RowNoise, child_key, derive_seed
from steer.search.engines.base import Engine, SpanRequest, SpanSample
from steer.search.tree import Tree
from steer.writing.span_loop import Draw as TokenDraw
from tests.steer.tiny import Z_DIM, forced_logits

CONTEXTS = [list(b"Once upon a time"), [65], list(b"The fox"), list(b"the dog")]
PAGED = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox")
NOT_PAGED = ("mistral_window", "gptj", "recurrent_gemma")  # those whose prefixes cannot be shared


def new_tree(contexts: Sequence[Sequence[int]] = CONTEXTS, *, horizon: int = 8, span_tokens: int = 8) -> Tree:
    """A tree of these roots, without any spans."""
    tree = Tree(span_tokens, Z_DIM, capacity=4)
    for number, context in enumerate(contexts):
        tree.add_root(context, seed=100 + number, horizon=horizon)
    return tree


def latent(seed: int) -> Tensor:
    """A latent `[z]`."""
    return torch.randn(Z_DIM, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Wish:
    """A child to write: behind which node, with which index, from which latent (None: unguided), and how strongly."""

    parent: int
    index: int
    z: Tensor | None = None
    scale: float = 1.0


def order_of(tree: Tree, wishes: Sequence[Wish], *, scales: bool = False) -> SpanRequest:
    """An order of children; a child's seed is its key, as in a search."""
    z = torch.stack([torch.zeros(tree.z_dim) if w.z is None else w.z for w in wishes])
    return SpanRequest(
        [w.parent for w in wishes],
        [child_key(int(tree.key[w.parent]), w.index) for w in wishes],
        z if any(w.z is not None for w in wishes) else None,
        torch.tensor([w.z is not None for w in wishes]),
        torch.tensor([w.scale for w in wishes]) if scales else None,
    )


def grow(engine: Engine, wishes: Sequence[Wish], *, keep: bool = True) -> tuple[list[int], SpanSample]:
    """Write children and add them to the engine's tree; returns the nodes, and what was drawn."""
    tree = engine.tree
    draw = engine.write(order_of(tree, wishes, scales=engine.with_null))
    nodes = [
        tree.add(
            wish.parent,
            wish.index,
            span,
            ended=ended,
            logprob=float(logprob),
            written_from=None if wish.z is None else wish.z.numpy(),
        )
        for wish, span, ended, logprob in zip(wishes, draw.spans, draw.ended, draw.logprobs, strict=True)
    ]
    if keep:
        engine.commit(draw, range(len(nodes)), nodes)
    return nodes, draw


def spy(engine: Engine) -> list[Tensor]:
    """Record the (mixed) logits `[R, V]` from which each token is drawn."""
    seen: list[Tensor] = []
    inner = engine._sampler

    def recording(order: SpanRequest) -> TokenDraw:
        draw = inner(order)

        def record(logits: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
            seen.append(logits.clone())
            return draw(logits, tokens)

        return record

    engine._sampler = recording  # type: ignore[method-assign]
    return seen


def wanted_logits(model: LatentModel, tree: Tree, node: int, scale: float = 1.0) -> Tensor:
    """Logits `[n, V]` that predict a node's span, from passes over its whole path without a cache."""
    path = tree.path(node)

    def own(n: int) -> Tensor | None:
        z = torch.from_numpy(tree.written_from[n].copy())
        return z if bool(z.any()) else None

    context = tree.context(node)
    guided = forced_logits(model, ROUTER, context, [(own(n), tree.span(n)) for n in path])[-1]
    if scale == 1 or own(node) is None:
        return guided
    null = forced_logits(model, ROUTER, context, [(None, tree.span(n)) for n in path])[-1]
    return null + scale * (guided - null)


def drawn(tree: Tree, node: int, logits: Tensor, temperature: float) -> tuple[list[int], float]:
    """What a node's seed draws from logits `[n, V]`, and the span's log-probability."""
    noise = RowNoise((derive_seed(int(tree.key[node]), "write"),))
    scores = torch.cat([noise.gumbel(step, logits.shape[1]) for step in range(len(logits))])
    ids = (logits / temperature + scores).argmax(1)
    logprobs = (logits / temperature).log_softmax(1)
    return ids.tolist(), float(logprobs[np.arange(len(ids)), tree.span(node)].sum())
