"""States without a model, and a model whose answers are known by hand."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from steer.models.latent_model import LatentModel
from steer.rewards import States


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_states(n: int = 3, z: int = 5, model: Any = None, seed: int = 0, **changes: Any) -> States:
    """Random states with terminals and two latents to avoid; the last row ended, the first is at the horizon."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(0, 4, (length,), generator=generator).tolist()

    fields: dict[str, Any] = {
        "model": cast(LatentModel, model),
        "latents": torch.randn(n, z, generator=generator),
        "terminals": torch.randn(n, z, generator=generator),
        "avoid": torch.randn(2, z, generator=generator),
        "spans": [ids(1, 9) for _ in range(n)],
        "before": [ids(0, 9) for _ in range(n)],
        "contexts": [ids(0, 9) for _ in range(n)],
        "ended": [i == n - 1 for i in range(n)],
        "remaining": [0 if i in (0, n - 1) else i for i in range(n)],
        "base_logprobs": lambda: -torch.arange(1, n + 1, dtype=torch.float32),
    }
    return States(**{**fields, **changes})


class WordTokenizer:
    """One token per word of a fixed list, with or without a space before it, as byte-level tokenizers spell them."""

    eos_token_id = 1
    bos_token_id = None

    def __init__(self, words: Sequence[str]) -> None:
        self.tokens = ["<unk>", "<end>", *words]

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        assert not add_special_tokens
        marked = text.replace("\n", " \n").replace(" ", " \u0120").split(" ")
        return {"input_ids": [self.convert_tokens_to_ids(word) for word in marked if word]}

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.tokens.index(token) if token in self.tokens else 0

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.tokens[i].replace("\u0120", " ").replace("\u2581", " ") for i in ids)


class AnsweringModel:
    """Its bare base says of a row whatever `logits` says, at the row's last kept place; elsewhere it says NaN."""

    device = torch.device("cpu")

    def __init__(self, words: Sequence[str], max_context: int = 6) -> None:
        self.tokenizer = WordTokenizer(words)
        vocab = SimpleNamespace(vocab_size=len(self.tokenizer.tokens))
        self.latent_config = SimpleNamespace(base=vocab, max_context=max_context)
        self.read: list[list[int]] = []

    def to_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def logits(self, row: Sequence[int]) -> Tensor:
        """Logits `[V]` behind a row: any function that tells rows apart."""
        return random(len(self.tokenizer.tokens), seed=hash(tuple(row)) % 2**31)

    def embed(self, ids: Tensor) -> Tensor:
        return ids[:, :, None].float()

    def role_logits(self, name: str | None, embeds: Tensor, mask: Tensor) -> Tensor:
        assert name is None
        out = torch.full((*mask.shape, len(self.tokenizer.tokens)), torch.nan)
        for r, length in enumerate(mask.sum(1).tolist()):
            row = [int(x) for x in embeds[r, :length, 0]]
            self.read.append(row)
            out[r, length - 1] = self.logits(row)
        return out
