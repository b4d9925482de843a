"""A latent model with untrained adapters, on any base: where training starts."""

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from steer.adapters import ENCODER, ROUTER, lora_config
from steer.base import load_base
from steer.config import BaseIdentity, LatentConfig
from steer.heads import LatentHead
from steer.model import LatentModel


def fresh_model(
    base: str | Path,
    *,
    name: str = "latent-model",
    span_tokens: int = 32,
    z_dim: int = 256,
    soft_tokens: int = 4,
    rank: int = 64,
    alpha: int = 64,
    max_context: int = 320,
    seed: int = 0,
    **options: Any,
) -> LatentModel:
    """Put an encoder, a router and heads on a base, all untrained.

    Encodings are arbitrary, and the router writes like the base after noise.

    Args:
        base: folder or hub id of a causal LM.
        name: of the new model.
        span_tokens, z_dim, soft_tokens, max_context: see `LatentConfig`.
        rank, alpha: of LoRA, on all linear layers but the output head.
        seed: of the start values.
        **options: see `steer.base.load_base`.
    """
    plain, tokenizer = load_base(base, **options)
    identity = BaseIdentity.of(plain, str(base))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft: Any = get_peft_model(plain, lora_config(plain, rank, alpha), adapter_name=ENCODER)
        peft.add_adapter(ROUTER, lora_config(plain, rank, alpha))
        head = LatentHead(identity.hidden_size, z_dim, soft_tokens)
        embedding: Any = plain.get_input_embeddings()
        head.reset(float(embedding.weight.float().pow(2).mean().sqrt()))
    config = LatentConfig(
        name=name,
        span_tokens=span_tokens,
        z_dim=z_dim,
        soft_tokens=soft_tokens,
        max_context=max_context,
        base=identity,
        encoder_id=f"{name}:untrained-{seed}",
    )
    return LatentModel(peft, head.to(plain.device), config, tokenizer).eval()
