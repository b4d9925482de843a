"""The draft head, a learned prior: what span comes next, told as a distribution of its latent.

A draft by writing costs a whole span: S tokens from the null latent, which are then encoded. The head reads the
router's last hidden state behind the null latent, which one pass over a few soft tokens gives, and the latent of the
last S visible tokens, and draws the next latent. It is trained on nothing but stories (`steer.training.heads.prior`).
"""

import math

import pydantic
import torch
from torch import Tensor, nn

from steer.errors import LatentError
from steer.heads.stored import StoredHead
from steer.noise import RowNoise

_NARROWEST, _WIDEST = -5.0, 2.0  # bounds on the logarithm of a spread, in standard deviations of the latents


class PriorConfig(pydantic.BaseModel):
    """The settings of a draft head, see `steer.heads.prior`.

    Attributes:
        encoder_id: of the encoder whose latents it draws.
        state_dim: width of what it reads, see `steer.heads.prior.read_state`.
        z_dim: width of a latent.
        axes: principal axes of the latents that it tells apart; the others are taken to be as they are on average.
        width: of its hidden layers.
        components: of the mixture.
        spread: factor on the standard deviations of what is drawn. 0 gives the mean, from which text is most fluent and
            comes nearest to its goal; 1 draws from what the head holds possible, and text varies more.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    encoder_id: str
    state_dim: int = pydantic.Field(ge=1)
    z_dim: int = pydantic.Field(ge=1)
    axes: int = pydantic.Field(ge=1)
    width: int = pydantic.Field(256, ge=8)
    components: int = pydantic.Field(1, ge=1)
    spread: float = pydantic.Field(0.0, ge=0, allow_inf_nan=False)


class PriorHead(StoredHead):
    """A mixture of Gaussians over the next latent, from a state as `read_state` makes it.

    Latents are turned into their principal axes and standardised there, so that independent noise in each number is
    noise along the axes in which latents vary; axes that carry next to nothing are left out. An encoder of 256
    numbers may use a third of them. Weights, means and spreads are those of a state; how the components differ in
    their spreads is the same for all states.

    Args:
        config: widths, number of components.
        dropout: of the hidden layers, in training.
    """

    what = "draft head gives"
    trained_by = "steer train prior"
    config: PriorConfig
    axes: Tensor
    state_mean: Tensor
    state_std: Tensor

    def __init__(self, config: PriorConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        width, axes, count = config.width, config.axes, config.components
        self.register_buffer("mean", torch.zeros(config.z_dim))
        self.register_buffer("axes", torch.eye(config.z_dim)[:, :axes].contiguous())
        self.register_buffer("std", torch.ones(axes))
        self.register_buffer("state_mean", torch.zeros(config.state_dim))
        self.register_buffer("state_std", torch.ones(config.state_dim))
        self.trunk = nn.Sequential(
            nn.Linear(config.state_dim, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.means = nn.Linear(width, count * axes)
        self.weights = nn.Linear(width, count)
        self.spreads = nn.Linear(width, axes)
        self.widths = nn.Parameter(torch.zeros(count, axes))
        nn.init.zeros_(self.spreads.weight)
        nn.init.zeros_(self.spreads.bias)

    @torch.no_grad()
    def fit_axes(self, states: Tensor, latents: Tensor) -> None:
        """Take means, deviations and principal axes from training states `[n, d]` and latents `[n, z_dim]`."""
        variances, axes = principal_axes(latents)
        self.mean.copy_(latents.mean(0))
        self.std.copy_(variances[: self.config.axes].clamp_min(1e-12).sqrt())
        self.axes.copy_(axes[:, : self.config.axes])
        self.state_mean.copy_(states.mean(0))
        self.state_std.copy_(states.std(0).clamp_min(1e-6))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mixture of each state `[n, d]`, in standardised principal axes.

        Returns:
            Log-weights `[n, K]`, means `[n, K, axes]` and logarithms of spreads `[n, K, axes]`.
        """
        hidden = self.trunk((states.to(self.state_mean) - self.state_mean) / self.state_std)
        means = self.means(hidden).unflatten(1, (self.config.components, -1))
        spreads = (self.spreads(hidden)[:, None] + self.widths).clamp(_NARROWEST, _WIDEST)
        return torch.log_softmax(self.weights(hidden), dim=1), means, spreads

    def standardize(self, z: Tensor) -> Tensor:
        """Latents `[n, z_dim]` along their principal axes, `[n, axes]`, of variance 1 over the training latents."""
        return ((z.to(self.mean) - self.mean) @ self.axes) / self.std

    def nll(self, states: Tensor, z: Tensor) -> Tensor:
        """Negative log-likelihood `[n]` of standardised latents `z` `[n, axes]` (see `standardize`), nats per number.

        Independent standard normal numbers, the Gaussian with the training latents' mean and covariance, have
        1.42 on average.
        """
        log_weights, means, spreads = self(states)
        log_density = -0.5 * ((z[:, None] - means) * (-spreads).exp()) ** 2 - spreads - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(log_weights + log_density.sum(2), dim=1) / z.shape[1]

    @torch.no_grad()
    def expect(self, states: Tensor) -> Tensor:
        """The mean `[n, z_dim]` float32 of the next latent, over all components.

        Raises:
            LatentError: see `sample`.
        """
        log_weights, means, _ = self(self._checked(states))
        return self._latents((means * log_weights.exp()[..., None]).sum(1)).float()

    @torch.no_grad()
    def sample(
        self, states: Tensor, noise: RowNoise, step: int, *, temperature: float = 1.0, spread: float | None = None
    ) -> Tensor:
        """Draw the next latents.

        The temperature does what it does to tokens: each component's density and the weights are taken to the power
        of its inverse, so variances grow with it, and 0 gives the mean of the likeliest component.

        Args:
            states: `[n, state_dim]`, see `read_state`.
            noise: of the rows; a row's draft depends on its own seed.
            step: of the noise.
            temperature: 0 or more.
            spread: factor on the standard deviations; by default the configuration's.

        Returns:
            `[n, z_dim]` float32 on the CPU.

        Raises:
            LatentError: states are of another width, or hold NaN or infinity.
        """
        log_weights, means, spreads = (x.float().cpu() for x in self(self._checked(states)))
        if temperature:
            log_weights = log_weights / temperature + noise.gumbel(step, log_weights.shape[1])
        rows, chosen = torch.arange(len(means)), log_weights.argmax(dim=1)
        drawn = means[rows, chosen]
        factor = (self.config.spread if spread is None else spread) * temperature**0.5
        if factor:
            drawn = drawn + factor * spreads[rows, chosen].exp() * noise.normal(step, drawn.shape[1])
        return self._latents(drawn).float().cpu()

    def _latents(self, z: Tensor) -> Tensor:
        return (z.to(self.mean) * self.std) @ self.axes.T + self.mean

    def _checked(self, states: Tensor) -> Tensor:
        if states.ndim != 2 or states.shape[1] != self.config.state_dim:
            raise LatentError(f"states have shape {tuple(states.shape)}, expected [n, {self.config.state_dim}]")
        if not bool(torch.isfinite(states).all()):
            raise LatentError("the model gave NaN or infinite states; the dtype may be too narrow (try float32)")
        return states


def principal_axes(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Variances `[z_dim]` of latents `[n, z_dim]` along their principal axes, falling, and the axes as columns."""
    centred = latents.double() - latents.double().mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(latents) - 1))
    return variances.flip(0), axes.flip(1)
