"""An encoder that needs no training: latents read off the states of the frozen base.

A span is cut into parts of equal length. Each part's mean input embedding and mean state at one layer, rare tokens
weighted up (Arora et al. 2017, "A simple but tough-to-beat baseline for sentence embeddings"), are projected on their
principal axes; the parts' numbers in a row are the latent. Early states tell what was said; final states tell what
comes next, and hardly that (docs/LOG.md, "A real base").
"""

from pathlib import Path
from typing import Any, Self, final

import pydantic
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from steer.heads.stored import load_head, read_tensors
from steer.models.layers import lower_layers

EPS = 1e-5  # of the states' root mean square, which they are divided by


class StateEncoderConfig(pydantic.BaseModel):
    """Which states make a latent.

    Attributes:
        parts: into which a span is cut.
        layer: whose input is read, counted from 0; that many layers are run.
        embedding_axes, layer_axes: principal axes kept of a part's mean embedding and of its mean state.
        begin: token id put before the span, as documents began in the base's training; None until the base is known.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    parts: int = pydantic.Field(4, ge=1)
    layer: int = pydantic.Field(9, ge=1)
    embedding_axes: int = pydantic.Field(40, ge=1)
    layer_axes: int = pydantic.Field(24, ge=1)
    begin: int | None = pydantic.Field(None, ge=0)

    @property
    def part_dim(self) -> int:
        """Numbers that each part gives."""
        return self.embedding_axes + self.layer_axes

    @property
    def z_dim(self) -> int:
        """Width of a latent."""
        return self.parts * self.part_dim


@final
class StateEncoder(nn.Module):
    """Latents of token rows, from a frozen base; nothing in it is trained, see `steer.training.state_encoder`.

    Args:
        config: which states are read.
        hidden_size: width d of the base.
        vocab_size: V, tokens of the base.
    """

    token_weight: Tensor
    embedding_mean: Tensor
    embedding_axes: Tensor
    layer_mean: Tensor
    layer_axes: Tensor

    def __init__(self, config: StateEncoderConfig, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.begin = config.begin or 0
        self.register_buffer("token_weight", torch.ones(vocab_size))
        for name, axes in (("embedding", config.embedding_axes), ("layer", config.layer_axes)):
            self.register_buffer(f"{name}_mean", torch.zeros(hidden_size))
            self.register_buffer(f"{name}_axes", torch.zeros(axes, hidden_size))

    @classmethod
    def load(cls, path: Path, config: StateEncoderConfig, hidden_size: int, vocab_size: int) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged, of other shapes, or holds NaN.
        """
        encoder = cls(config, hidden_size, vocab_size)
        load_head(encoder, read_tensors(path), path)
        return encoder.eval()

    def save(self, path: Path, dtype: torch.dtype | None = None) -> None:
        """Write the tensors as safetensors, cast to `dtype`."""
        tensors = {name: t.detach().to(dtype or t.dtype).contiguous().cpu() for name, t in self.state_dict().items()}
        save_file(tensors, path)

    @torch.no_grad()
    def part_means(self, base: Any, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted means over each part of the embeddings and of the states, each `[B, parts, d]` float32.

        Args:
            base: the `transformers` causal LM without an adapter.
            ids: `[B, T]` token ids.
            mask: `[B, T]`, 1 for tokens that count; padding may stand on either side. An empty row's means are zero.
        """
        # To the left: a causal pass never looks at padding that stands behind.
        order = torch.argsort(mask, dim=1, descending=True, stable=True)
        ids, lengths = ids.gather(1, order), mask.sum(1)
        begun = torch.cat([ids.new_full((len(ids), 1), self.begin), ids], dim=1)
        embeds = base.get_input_embeddings()(begun)
        states = lower_layers(base, self.config.layer)(inputs_embeds=embeds, use_cache=False).last_hidden_state.float()
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + EPS)
        weights = part_members(lengths, self.config.parts, ids.shape[1]) * self.token_weight[ids][:, None]
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return weights @ embeds[:, 1:].float(), weights @ states[:, 1:]

    def project(self, embedding: Tensor, layer: Tensor) -> Tensor:
        """Latents `[B, z_dim]` of part means `[B, parts, d]`."""
        told = (embedding - self.embedding_mean) @ self.embedding_axes.T
        return torch.cat([told, (layer - self.layer_mean) @ self.layer_axes.T], dim=-1).flatten(1)

    def forward(self, base: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Latents `[B, z_dim]` float32 of token rows `[B, T]`; see `part_means`."""
        return self.project(*self.part_means(base, ids, mask))


def part_members(lengths: Tensor, parts: int, width: int) -> Tensor:
    """Which tokens are in which part, `[B, parts, T]` float32 of zeros and ones.

    Token t of n is in part `floor(parts * t / n)`. In a row of fewer tokens than parts, a part without a token takes
    the one nearest before it.

    Args:
        lengths: `[B]` int64, tokens of each row, which stand at its left.
        parts: number of parts.
        width: T.
    """
    n, part = lengths[:, None], torch.arange(parts, device=lengths.device)
    first, end = -(-part * n // parts), -(-(part + 1) * n // parts)
    short = end <= first
    first = torch.where(short, torch.minimum(part * n // parts, (n - 1).clamp_min(0)), first)
    end = torch.where(short, first + 1, end).clamp_max(n)
    place = torch.arange(width, device=lengths.device)
    return ((place >= first[..., None]) & (place < end[..., None])).float()
