"""What the benchmark of tree search compares with: `generate` of transformers, and a loop over a copied cache."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList
from transformers.generation.logits_process import (
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from steer.models.adapters import ROUTER

TEMPERATURE, TOP_P = 0.7, 0.95


@torch.inference_mode()
def generate(plain: Any, embeds: Tensor, fanout: int, tokens: int) -> Tensor:
    """K continuations of each path by `generate`, token ids `[P * K, tokens]`."""
    return plain.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
        num_return_sequences=fanout,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        top_p=TOP_P,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
    )


@torch.inference_mode()
def read_path(plain: Any, embeds: Tensor) -> DynamicCache:
    """The cache of paths as their own expansion left it: all but the last token, which no pass had as input yet."""
    return plain(inputs_embeds=embeds, use_cache=True, logits_to_keep=1).past_key_values


@torch.inference_mode()
def copied_cache(plain: Any, parents: DynamicCache, chunk: Tensor, fanout: int, tokens: int, end: int | None) -> Tensor:
    """K continuations of each path by a plain loop over a copy of its cache, token ids `[P * K, tokens]`."""
    processors = LogitsProcessorList([TemperatureLogitsWarper(TEMPERATURE), TopPLogitsWarper(TOP_P)])
    if end is not None:
        processors.insert(0, SuppressTokensLogitsProcessor([end], device=str(chunk.device)))
    cache = copy.deepcopy(parents)
    logits = plain(inputs_embeds=chunk, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    cache.batch_repeat_interleave(fanout)
    logits = logits.repeat_interleave(fanout, dim=0)
    written = torch.empty(len(logits), 0, dtype=torch.long, device=chunk.device)
    while True:
        scores: Tensor = processors(written, logits.float())  # type: ignore[arg-type]
        ids = torch.multinomial(scores.softmax(dim=-1), 1)
        written = torch.cat([written, ids], dim=1)
        if written.shape[1] == tokens:
            return written
        logits = plain(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]


def rivals(model: Any, embeds: Tensor, fanout: int, per_call: int) -> dict[str, Callable[[], Tensor]]:
    """The other arms, with so many leaves per call. What the leaves' own expansion left behind is made here."""
    plain, size, end = model.fused(ROUTER), model.span_tokens, model.tokenizer.eos_token_id
    known = embeds.shape[1] - model.latent_config.soft_tokens - 1
    parts = embeds.split(per_call)
    caches = [read_path(plain, part[:, :known]) for part in parts]

    def by_copies() -> Tensor:
        written = [
            copied_cache(plain, cache, part[:, known:], fanout, size, end)
            for cache, part in zip(caches, parts, strict=True)
        ]
        return torch.cat(written)

    return {
        "generate": lambda: torch.cat([generate(plain, part, fanout, size) for part in parts]),
        "copied cache": by_copies,
    }
