"""Tiny latent models for tests, whose adapters do something, and full forward passes to compare with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from steer.writing import guided

SPAN, Z_DIM, SOFT = 8, 6, 2


def stir(model: LatentModel, *, seed: int = 0, std: float = 0.2) -> LatentModel:
    """Fill the `B` matrices of LoRA, which are zero at first: an adapter that does nothing hides every mix-up."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.peft.named_parameters():
        if "lora_B" in name:
            parameter.data = std * torch.randn(parameter.shape, generator=generator)
    model.invalidate()
    return model


def tiny_model(base: str | Path, **options: Any) -> LatentModel:
    """A stirred latent model: S = 8, latents of 6 numbers, two soft tokens each, float32 on the CPU."""
    settings = dict(span_tokens=SPAN, z_dim=Z_DIM, soft_tokens=SOFT, rank=4, alpha=8, max_context=40)
    return stir(fresh_model(base, **{"dtype": "float32", "device": "cpu", **settings, **options}))


def sharpen(model: LatentModel, factor: float = 30.0) -> LatentModel:
    """Multiply the output head: random heads give logits of a tenth, on which an error of 1e-4 would not show."""
    model.peft.get_base_model().get_output_embeddings().weight.data.mul_(factor)
    model.invalidate()
    return model


@torch.no_grad()
def forced_logits(
    model: LatentModel,
    adapter: str | None,
    context: Sequence[int],
    parts: Sequence[tuple[Tensor | None, Sequence[int]]],
) -> list[Tensor]:
    """Logits `[S, V]` that predict each span of `[context] z1 x1 z2 x2 ...`, one row, from one pass without a cache.

    PEFT's own switch puts the adapter in force, so that nothing of `steer.models.adapters` is shared with what is
    tested.
    A part's latent is `[z]`, or None for the null latent; without an adapter nothing stands for the latent.
    """
    table = model.peft.get_base_model().get_input_embeddings()
    pieces, starts = [table(torch.tensor([list(context)], dtype=torch.long))], []
    for z, ids in parts:
        if adapter is not None:
            pieces.append(model.head.null_soft(1) if z is None else model.head.soft(z[None]))
        starts.append(sum(piece.shape[1] for piece in pieces))
        pieces.append(table(torch.tensor([list(ids)], dtype=torch.long)))
    embeds = torch.cat(pieces, dim=1)
    if adapter is None:
        with model.peft.disable_adapter():
            logits = model.peft(inputs_embeds=embeds, use_cache=False).logits[0]
    else:
        model.peft.set_adapter(adapter)
        logits = model.peft(inputs_embeds=embeds, use_cache=False).logits[0]
        model.peft.requires_grad_(False)
    return [logits[start - 1 : start - 1 + len(ids)] for start, (_, ids) in zip(starts, parts, strict=True)]


def marks_of(model: LatentModel) -> list[int]:
    """Ids of special tokens, which are never written; the end token is another matter."""
    return [i for i in model.tokenizer.all_special_ids if i != model.tokenizer.eos_token_id]


def assert_near(actual: Tensor, wanted: Tensor, atol: float = 1e-4) -> None:
    """Every element within `atol`."""
    torch.testing.assert_close(actual, wanted, atol=atol, rtol=0.0)


def write_guided(model: LatentModel, contexts: Any, **options: Any) -> list[guided.Written]:
    """`steer.write_guided` without classifier-free guidance, unless it is asked for."""
    how: dict[str, Any] = {"guidance_scale": 1.0, **options}
    return guided.write_guided(model, contexts, **how)
