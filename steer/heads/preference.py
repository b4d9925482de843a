"""A preference head: one number per latent, trained on pairs of texts of which one was preferred.

Bradley and Terry (1952): the preferred text of a pair wins with the probability sigmoid(r_chosen - r_rejected). Only
differences of scores mean anything.
"""

from pathlib import Path
from typing import Self

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from steer.errors import CheckpointError
from steer.files import write_atomic
from steer.heads.stored import EncoderHead, load_head, read_tensors

CENTER = 0.01  # as recommended for reward models in TRL's `center_rewards_coefficient`


class PreferenceConfig(pydantic.BaseModel):
    """The settings of a preference head, kept in the header of its file.

    Attributes:
        encoder_id: of the encoder whose latents it was trained on.
        z_dim: width of a latent.
        width: of the hidden layer; 0 for a linear head.
        accuracy: share of held-out pairs that it orders as people did; None before training.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    encoder_id: str
    z_dim: int = pydantic.Field(ge=1)
    width: int = pydantic.Field(default=64, ge=0)
    accuracy: float | None = None


class PreferenceHead(EncoderHead):
    """Scores latents of texts.

    Args:
        config: widths.
        dropout: of the hidden layer, in training.
    """

    what = "preference head reads"
    trained_by = "steer train preference"
    config: PreferenceConfig

    def __init__(self, config: PreferenceConfig, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.config = config
        self.add_scales(config.z_dim)
        width = config.width
        self.layers = (
            nn.Sequential(nn.Linear(config.z_dim, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 1))
            if width
            else nn.Linear(config.z_dim, 1)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Scores `[n]` float32 of latents `[n, z_dim]`, as the encoder gives them."""
        return self.layers(self.standardize(latents)).squeeze(-1).float()

    @torch.no_grad()
    def score(self, latents: Tensor) -> Tensor:
        """Scores `[n]` float32 on the latents' device: log-odds of being preferred, up to a constant. No gradients.

        Args:
            latents: `[n, z_dim]`, of spans or of whole texts (`model.encode(text, long="mean")`).

        Raises:
            LatentError: another shape, NaN or infinity.
        """
        self.check_latents(latents, "texts")
        return self(latents).to(latents.device)

    def save(self, path: str | Path) -> None:
        """Write weights and configuration to one safetensors file, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}
        write_atomic(path, save(tensors, metadata={"format": "pt", "preference": self.config.model_dump_json()}))

    @classmethod
    def load(cls, path: str | Path, encoder_id: str | None = None) -> Self:
        """Read a head; it comes frozen and in evaluation mode.

        Args:
            path: as written by `save`.
            encoder_id: of the model that it is to serve; None leaves the check to the caller (`check_encoder`).

        Raises:
            CheckpointError: the file is missing, damaged, no preference head, holds NaN, or belongs to another encoder.
        """
        path = Path(path)
        tensors = read_tensors(path)
        try:
            with safe_open(path, framework="pt") as file:
                config = PreferenceConfig.model_validate_json((file.metadata() or {}).get("preference", ""))
        except (SafetensorError, OSError, pydantic.ValidationError) as error:
            raise CheckpointError(f"{path} is no preference head; train one: steer train preference") from error
        head = cls(config)
        if encoder_id is not None:
            head.check_encoder(encoder_id)
        load_head(head, tensors, path)
        return head.eval()


def preference_loss(chosen: Tensor, rejected: Tensor, *, center: float = CENTER) -> Tensor:
    """Mean of `-logsigmoid(r_chosen - r_rejected)` in nats, and a small pull of the scores' sum to 0.

    Without the pull scores of different pairs could drift apart (Eisenstein et al. 2023).

    Args:
        chosen, rejected: scores `[n]`.
        center: weight of the mean squared sum.
    """
    return -nn.functional.logsigmoid(chosen - rejected).mean() + center * (chosen + rejected).pow(2).mean()
