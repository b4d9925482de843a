"""Bases of many families, growing trees with an engine alone, and full passes to compare with."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RecurrentGemmaConfig,
)

from steer.adapters import ROUTER
from steer.model import LatentModel
from steer.sampling import RowNoise, derive_seed
from steer.search.engine import Draw, Engine, Order
from steer.search.tree import Tree, child_key
from tests.steer.tiny import Z_DIM, forced_logits

EOS = 256
CONTEXTS = [list(b"Once upon a time"), [65], list(b"The fox"), list(b"the dog")]

_ROPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": lambda **k: LlamaConfig(**_ROPE, **k),
    "mistral": lambda **k: MistralConfig(**_ROPE, sliding_window=None, **k),  # pyright: ignore[reportArgumentType]
    "qwen2": lambda **k: Qwen2Config(**_ROPE, **k),
    "qwen3": lambda **k: Qwen3Config(**_ROPE, head_dim=8, **k),
    "gpt2": lambda **k: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **k),
    "gpt_neox": lambda **k: GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        **k,
    ),
    # Those whose prefixes cannot be shared.
    "mistral_window": lambda **k: MistralConfig(**_ROPE, sliding_window=12, **k),
    "gptj": lambda **k: GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=8, n_positions=128, **k),
    "recurrent_gemma": lambda **k: RecurrentGemmaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        lru_width=32,
        attention_window_size=12,
        **k,
    ),
}
PAGED = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox")
NOT_PAGED = ("mistral_window", "gptj", "recurrent_gemma")


def make_base(family: str, tokenizer: Path, folder: Path) -> Path:
    """A random base of a family with the tokenizer of another folder."""
    config = FAMILIES[family](vocab_size=258, bos_token_id=256, eos_token_id=EOS, pad_token_id=257)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(config)
        # Start values are so small that attention is even and logits are flat; an error in either would not show.
        for parameter in base.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(8)
            else:
                parameter.data.add_(0.1 * torch.randn(parameter.shape))
    base.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


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


def order_of(tree: Tree, wishes: Sequence[Wish], *, scales: bool = False) -> Order:
    """An order of children; a child's seed is its key, as in a search."""
    z = torch.stack([torch.zeros(tree.z_dim) if w.z is None else w.z for w in wishes])
    return Order(
        [w.parent for w in wishes],
        [child_key(int(tree.key[w.parent]), w.index) for w in wishes],
        z if any(w.z is not None for w in wishes) else None,
        torch.tensor([w.z is not None for w in wishes]),
        torch.tensor([w.scale for w in wishes]) if scales else None,
    )


def grow(engine: Engine, wishes: Sequence[Wish], *, keep: bool = True) -> tuple[list[int], Draw]:
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
        engine.keep(draw, range(len(nodes)), nodes)
    return nodes, draw


def spy(engine: Engine) -> list[Tensor]:
    """Record the (mixed) logits `[R, V]` from which each token is drawn."""
    seen: list[Tensor] = []
    inner = engine._next

    def record(logits: Tensor, *args: Any) -> Any:
        seen.append(logits.clone())
        return inner(logits, *args)

    engine._next = record  # type: ignore[method-assign]
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
