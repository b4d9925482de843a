"""How a model proposes its own next latent: by writing a span and encoding it, or by its draft head."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.models.latent_model import LatentModel
from steer.noise import RowNoise

Drafts = Literal["write", "head"]  # write a span and encode it, or ask the draft head


def read_state(model: LatentModel, hidden: Tensor, visible: Sequence[Sequence[int]]) -> Tensor:
    """What a head reads: `[n, d + z_dim]` float32 on the CPU.

    Args:
        hidden: `[n, d]`. In the `interleaved` layout the router's last hidden state at the last soft token of the null
            latent; in BigVAE's, which has none, that of the bare base at the last visible token.
        visible: token ids before it; the latent of the last S of them is the rest of the state.
    """
    begin = model.layout.begin(model.tokenizer)
    spans = [list(ids)[-model.span_tokens :] or [begin] for ids in visible]
    return torch.cat([hidden.float().cpu(), model.encode_ids(spans)], dim=1)


def check_drafts(model: LatentModel, drafts: str) -> None:
    """Whether a model can make drafts in this way.

    Args:
        drafts: `write` or `head`.

    Raises:
        GuidanceError: there is no such way, or the model has no draft head.
    """
    if drafts not in get_args(Drafts):
        raise GuidanceError(f"unknown way of drafting {drafts!r}; expected one of {', '.join(get_args(Drafts))}")
    if drafts == "head" and model.prior is None:
        raise GuidanceError(
            "drafts by head need a model with a draft head, and this one has none; train one with `steer train prior`, "
            "or let drafts be written (drafts: write)"
        )


def head_drafts(
    model: LatentModel,
    hidden: Tensor,
    visible: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    temperature: float,
) -> Tensor:
    """Drafts of a model's draft head, `[n, z_dim]` float32 on the CPU.

    Args:
        model: has a draft head, see `check_drafts`.
        hidden, visible: see `read_state`.
        seeds: one per row.
        temperature: see `steer.heads.prior.PriorHead.sample`.
    """
    assert model.prior is not None
    states = read_state(model, hidden, visible)
    return model.prior.sample(states, RowNoise(tuple(seeds)), 0, temperature=temperature)
