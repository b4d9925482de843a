"""The reach head: how likely a terminal still comes, and how soon, judged from two latents.

It is trained on nothing but stories (`steer.training.heads.reach`): a passage that follows a span at some distance can
be reached from it, passages of other stories and those already told cannot.
"""

from collections.abc import Sequence

import pydantic
import torch
from torch import Tensor, nn

from steer.errors import LatentError
from steer.heads.stored import StoredHead

COSINES = 8


class ReachConfig(pydantic.BaseModel):
    """The settings of a reach head, see `steer.heads.reach`.

    Attributes:
        encoder_id: of the encoder whose latents it was trained on.
        z_dim: width of a latent.
        width: of its hidden layers.
        buckets: the distance in spans at which each bucket begins. The first is 0, a terminal inside the state itself;
            the last bucket has no end. By default 0, 1, 2, 3, 4, 5-6, 7-9, 10 and more.
        tail: mean distance of the training pairs in the last bucket.
        temperature: the logits are divided by it; fitted on held-out pairs.
        other_share, rival_share, earlier_share: the mix of pairs that its probabilities are calibrated for: shares of
            terminals from any other story, from a story with a shared name, and from before the state. The rest can be
            reached, each bucket as often.
        told_chance, told_similarity: probability that a terminal lies inside a span, and cosine of the two, from which
            it counts as told; both must be met. Calibrated by `steer.training.heads.arrival`; None where they were not.
        pulled_similarity: the cosine that takes the place of `told_similarity` in text that was pulled towards the
            terminal: the median of what stories tell. None where it was not calibrated.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    encoder_id: str
    z_dim: int = pydantic.Field(ge=1)
    width: int = pydantic.Field(128, ge=8, multiple_of=8)
    buckets: list[int] = [0, 1, 2, 3, 4, 5, 7, 10]
    tail: float = pydantic.Field(12.0, gt=0)
    temperature: float = pydantic.Field(1.0, gt=0)
    other_share: float = pydantic.Field(0.25, ge=0, le=1)
    rival_share: float = pydantic.Field(0.2, ge=0, le=1)
    earlier_share: float = pydantic.Field(0.05, ge=0, le=1)
    told_chance: float | None = pydantic.Field(None, ge=0, le=1)
    told_similarity: float | None = pydantic.Field(None, ge=-1, le=1)
    pulled_similarity: float | None = pydantic.Field(None, ge=-1, le=1)

    @pydantic.field_validator("buckets")
    @classmethod
    def _rising(cls, buckets: list[int]) -> list[int]:
        if buckets[:1] != [0] or len(buckets) < 2 or sorted(set(buckets)) != buckets:
            raise ValueError("buckets begin at 0 and rise: at least [0, 1]")
        return buckets

    @pydantic.model_validator(mode="after")
    def _some_reached(self) -> "ReachConfig":
        if self.other_share + self.rival_share + self.earlier_share >= 1:
            raise ValueError("other_share, rival_share and earlier_share leave no pairs that can be reached")
        return self


class ReachHead(StoredHead):
    """Classifies pairs of latents by distance in spans: the buckets of the configuration, and last `unreachable`.

    Both latents are standardised and mapped by a linear layer each. Their maps, the product, the difference, and the
    cosines of eight parts of them feed a small MLP. About 150,000 parameters at width 128 and latents of 256.

    Args:
        config: widths, buckets, temperature.
        dropout: of the hidden layers, in training.
    """

    what = "reach head reads"
    trained_by = "steer train reach"
    config: ReachConfig

    def __init__(self, config: ReachConfig, *, dropout: float = 0.3) -> None:
        super().__init__()
        self.config = config
        width, z_dim = config.width, config.z_dim
        self.add_scales(z_dim)
        self.state = nn.Linear(z_dim, width)
        self.terminal = nn.Linear(z_dim, width)
        features = 4 * width + COSINES + 1
        self.mlp = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, len(config.buckets) + 1),
        )

    def forward(self, state: Tensor, terminal: Tensor) -> Tensor:
        """Logits `[n, buckets + 1]` float32, not yet divided by the temperature.

        Args:
            state, terminal: `[n, z_dim]`, standardised.
        """
        a, b = self.state(state), self.terminal(terminal)
        parts = nn.functional.cosine_similarity(a.unflatten(1, (COSINES, -1)), b.unflatten(1, (COSINES, -1)), dim=2)
        whole = nn.functional.cosine_similarity(state, terminal, dim=1)[:, None]
        return self.mlp(torch.cat([whole, parts, a, b, a * b, (a - b).abs()], dim=1)).float()

    @torch.no_grad()
    def probabilities(self, state: Tensor, terminal: Tensor) -> Tensor:
        """Calibrated probabilities `[n, buckets + 1]` float32 of each bucket and, last, of `unreachable`.

        Args:
            state: `[n, z_dim]` latents of spans, as the encoder gives them.
            terminal: `[n, z_dim]`, or `[1, z_dim]` for all rows.

        Raises:
            LatentError: shapes do not fit, or a latent holds NaN or infinity.
        """
        self.check_latents(state, "states")
        self.check_latents(terminal, "terminals")
        if terminal.shape[0] not in (1, state.shape[0]):
            raise LatentError(
                f"{terminal.shape[0]} terminals for {state.shape[0]} states; give one for each, or one for all"
            )
        first, second = self.standardize(state), self.standardize(terminal).expand(state.shape[0], -1)
        return torch.softmax(self(first, second) / self.config.temperature, dim=1).to(state.device)

    def told(self, state: Tensor, terminal: Tensor) -> Tensor:
        """Probability `[n]` float32 that the terminal is told in the state itself.

        Args:
            state, terminal: see `probabilities`.

        Raises:
            LatentError: see `probabilities`.
        """
        return self.probabilities(state, terminal)[:, 0]

    def within(self, state: Tensor, terminal: Tensor, spans: int | Sequence[int] | Tensor) -> Tensor:
        """Probability `[n]` float32 that the terminal is told in full within so many spans after the state.

        A terminal inside the state itself counts as told. Within a bucket the probability is spread evenly, in the last
        one geometrically. Calibrated for the mix of pairs in training, half of which can be reached.

        Args:
            state, terminal: see `probabilities`.
            spans: a number, or one for each row; from 0.

        Raises:
            LatentError: see `probabilities`; or `spans` is negative or of another length.
        """
        chances = self.probabilities(state, terminal)[:, :-1]
        count = torch.as_tensor(spans, device=chances.device, dtype=torch.float32)
        if count.dim() > 1 or (count.dim() == 1 and len(count) != len(chances)):
            raise LatentError(f"spans has shape {tuple(count.shape)}, expected one number or [{len(chances)}]")
        if bool((count < 0).any()):
            raise LatentError(f"spans must be 0 or more, got {float(count.min()):g}")
        first = torch.tensor(self.config.buckets, device=chances.device, dtype=torch.float32)
        into = count.expand(len(chances))[:, None] - first + 1
        share = (into[:, :-1] / (first[1:] - first[:-1])).clamp(0, 1)
        excess = max(self.config.tail - self.config.buckets[-1] + 1, 1.0)
        last = 1 - (1 - 1 / (excess + 1e-6)) ** into[:, -1:].clamp_min(0)
        return (chances * torch.cat([share, last], dim=1)).sum(1)

    def distance(self, state: Tensor, terminal: Tensor) -> Tensor:
        """Expected distance `[n]` float32 in spans, given that the terminal can be reached.

        Args:
            state, terminal: see `probabilities`.

        Raises:
            LatentError: see `probabilities`.
        """
        chances = self.probabilities(state, terminal)[:, :-1]
        starts = self.config.buckets
        middles = [(a + b - 1) / 2 for a, b in zip(starts[:-1], starts[1:], strict=True)] + [self.config.tail]
        return (chances * chances.new_tensor(middles)).sum(1) / chances.sum(1).clamp_min(1e-9)
