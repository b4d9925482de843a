"""Tiny random bases of many families, with the byte-level tokenizer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RecurrentGemmaConfig,
    StableLmConfig,
)

EOS = 256

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
    # Quantised weights come in blocks of 64, so it is wider than the others.
    "llama_wide": lambda **k: LlamaConfig(**{**_ROPE, "hidden_size": 128, "intermediate_size": 128}, **k),
    "llama_tied": lambda **k: LlamaConfig(**_ROPE, tie_word_embeddings=True, **k),
    "mistral": lambda **k: MistralConfig(**_ROPE, sliding_window=None, **k),  # pyright: ignore[reportArgumentType]
    "mistral_wide": lambda **k: MistralConfig(**_ROPE, **k),  # its window is wider than any text here
    "mistral_window": lambda **k: MistralConfig(**_ROPE, sliding_window=12, **k),
    "mixtral": lambda **k: MixtralConfig(**_ROPE, num_local_experts=2, **k),
    "stablelm": lambda **k: StableLmConfig(**_ROPE, **k),  # one of those that ignore `is_causal=False`
    "qwen2": lambda **k: Qwen2Config(**_ROPE, **k),
    "qwen3": lambda **k: Qwen3Config(**_ROPE, head_dim=8, **k),
    "gemma": lambda **k: GemmaConfig(**_ROPE, head_dim=8, **k),
    "gemma2": lambda **k: Gemma2Config(**_ROPE, head_dim=8, sliding_window=12, **k),
    "gpt2": lambda **k: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **k),
    "gptj": lambda **k: GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=8, n_positions=128, **k),
    "gpt_neox": lambda **k: GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        **k,
    ),
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


def make_base(family: str, tokenizer: Path, folder: Path) -> Path:
    """A random base of a family with the tokenizer of another folder."""
    config = FAMILIES[family](vocab_size=258, bos_token_id=EOS, eos_token_id=EOS, pad_token_id=257)
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
