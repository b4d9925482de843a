"""Choosing an engine: the fast one where a base allows it, and a reason that people can read where it does not."""

import logging
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from steer.errors import UnsupportedBase
from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.search.engines.base import Engine
from steer.search.engines.paged import PagedEngine
from steer.search.engines.prefill import PrefillEngine
from steer.search.engines.prefix_cache import PrefixCache
from steer.search.tree import Tree
from steer.writing.cache import SpanCache

logger = logging.getLogger(__name__)

# Largest difference of logits, relative to their spread, that counts as rounding.
_TOLERANCE = {torch.float32: 1e-3}
_LOOSE = 5e-2


def paging_problem(model: LatentModel) -> str:
    """Why a model's prefixes cannot be shared in pages; an empty text where they can.

    The base's cache must be of plain layers, and a probe must agree: a span behind a prompt and another span, computed
    over segments and at once. It is found out once per model.
    """
    return model.cached(("paging problem", model.fuse), lambda: _problem(model))


def _problem(model: LatentModel) -> str:
    if not model.layout.keeps_latents:
        return f"the layout {model.layout.name!r} writes every span with another prefix"
    base = model.peft.get_base_model()
    try:
        layers = DynamicCache(config=base.config).layers
    except (TypeError, ValueError, AttributeError) as error:
        return f"the base's cache is not known ({str(error).splitlines()[0]})"
    odd = {type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}
    if odd:
        return f"the base's cache has layers of its own kind ({', '.join(sorted(odd))})"
    try:
        difference, spread = _probe(model)
    except Exception as error:  # whatever a foreign model raises, there is a slower way
        return f"the base's attention cannot be exchanged ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
    if not difference <= _TOLERANCE.get(model.dtype, _LOOSE) * max(spread, 1e-6):
        return f"the base's attention over pages differs from its own by {difference:.2g} in logits"
    return ""


@torch.inference_mode()
def _probe(model: LatentModel) -> tuple[float, float]:
    """Greatest difference of logits between both ways, and their standard deviation."""
    size = model.span_tokens
    tokens = torch.arange(1, 6 + 2 * size) % model.latent_config.base.vocab_size
    tree = Tree(size, model.latent_config.z_dim)
    root = tree.add_root(tokens[:5].tolist(), seed=0, horizon=3)
    node = tree.add(root, 0, tokens[5 : 5 + size].tolist())
    last = tokens[None, 5 + size : 4 + 2 * size].to(model.device)
    prefix = PrefixCache(model, ROUTER, tree)
    prefix.ensure([node])
    null = model.soft(None, 1)
    segments, start = prefix.prefix([node])
    chunk = prefix.chunk([node], null, last)
    paged = prefix.forward(chunk, SpanCache(prefix.layers, 1, chunk.shape[1]), segments, start, keep=chunk.shape[1])
    first = model.embed(tokens[None, : 5 + size].to(model.device))
    whole = torch.cat([first[:, :5], null, first[:, 5:], null, model.embed(last)], dim=1)
    plain = model.role_logits(ROUTER, whole)[:, -chunk.shape[1] :]
    return float((paged.float() - plain.float()).abs().max()), float(plain.float().std())


def open_engine(
    model: LatentModel, tree: Tree, *, memory: int = 2 * 2**30, paged: bool | None = None, **options: Any
) -> Engine:
    """An engine for a model.

    Args:
        tree: nodes are read from it.
        memory: bytes for key-value pages; what does not fit is computed again.
        paged: True insists on pages, False does without; None tries, and warns in the log where it cannot be.
        options: `sampling`, `with_null`, `limits`; see `Engine`.

    Raises:
        UnsupportedBase: `paged=True` and the base does not allow it.
    """
    if paged is False:
        return PrefillEngine(model, tree, reason="asked for", **options)
    problem = paging_problem(model)
    if not problem:
        return PagedEngine(model, tree, memory=memory, **options)
    if paged:
        raise UnsupportedBase(f"key-value pages cannot be used: {problem}; without `paged` it works, more slowly")
    logger.warning("search computes every prefix again, which is slow: %s", problem)
    return PrefillEngine(model, tree, reason=problem, **options)
