"""The trained parts outside the base model: latent attention pooling, the posterior mean, and soft tokens.

Source: MiniHF `VAEComponent` (Crowson and Pressman), restated; the several soft tokens and the learned null latent are
ours.
"""

import torch
from torch import Tensor, nn


class LatentHead(nn.Module):
    """Pools hidden states to a latent and turns a latent into soft tokens.

    Args:
        hidden_size: width d of the base model.
        z_dim: width of a latent.
        soft_tokens: k, embedding positions per latent.
        with_null: whether there is a learned null latent (the `interleaved` layout has one, `minihf` has not).
        with_pooling: whether it makes latents too; where a `StateEncoder` does, it has no `f` and no `w_e`.
    """

    def __init__(
        self,
        hidden_size: int,
        z_dim: int,
        soft_tokens: int = 1,
        *,
        with_null: bool = True,
        with_pooling: bool = True,
    ) -> None:
        super().__init__()
        self.soft_tokens = soft_tokens
        self.hidden_size = hidden_size
        self.with_pooling = with_pooling
        if with_pooling:
            self.f = nn.Linear(hidden_size, 1)
            self.w_e = nn.Linear(hidden_size, z_dim)
        self.w_d = nn.Linear(z_dim, hidden_size * soft_tokens)
        self.null = nn.Parameter(torch.zeros(soft_tokens, hidden_size)) if with_null else None

    def reset(self, embedding_rms: float, *, tied: bool = False) -> None:
        """Start values.

        Args:
            embedding_rms: size of the base's embeddings. The map to soft tokens and the null latent are random, and
                give soft tokens of that size; the map to latents is orthogonal.
            tied: add to each soft token the map to latents, turned round (MiniHF starts so): what is written from then
                begins as what was read, and training finds its way much sooner.
        """
        if self.with_pooling:
            nn.init.orthogonal_(self.w_e.weight)
            nn.init.zeros_(self.w_e.bias)
        nn.init.normal_(self.w_d.weight, std=embedding_rms / self.w_d.in_features**0.5)
        nn.init.zeros_(self.w_d.bias)
        if self.null is not None:
            nn.init.normal_(self.null, std=embedding_rms)
        if tied and self.with_pooling:
            with torch.no_grad():
                self.w_d.weight += self.w_e.weight.T.repeat(self.soft_tokens, 1)

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Posterior means.

        Args:
            hidden: `[B, T, d]` states after the base's final norm.
            mask: `[B, T]`, 1 for tokens that count.

        Returns:
            `[B, z_dim]` float32.
        """
        assert self.with_pooling, "latents come from a state encoder"
        hidden = hidden.to(self.f.weight.dtype)
        scores = self.f(hidden).squeeze(-1).float().masked_fill(mask == 0, torch.finfo(torch.float32).min)
        weights = torch.softmax(scores, dim=1).to(hidden.dtype)
        return self.w_e(torch.einsum("bt,btd->bd", weights, hidden)).float()

    def soft(self, z: Tensor) -> Tensor:
        """Soft tokens `[B, k, d]` of latents `[B, z_dim]`."""
        return self.w_d(z.to(self.w_d.weight.dtype)).view(z.shape[0], self.soft_tokens, self.hidden_size)

    def null_soft(self, rows: int) -> Tensor:
        """Soft tokens `[rows, k, d]` of the null latent."""
        assert self.null is not None, "this layout has no null latent"
        return self.null[None].expand(rows, -1, -1)
