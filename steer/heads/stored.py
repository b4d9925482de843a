"""Small heads that are kept beside a model: written, read, and tied to the encoder whose latents they know."""

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from steer.errors import CheckpointError, LatentError


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or no safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; the checkpoint is incomplete") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); copy or download it again") from error


def load_head(head: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Fill a head, after comparing names and shapes and looking for NaN.

    Raises:
        CheckpointError: something does not fit; says what.
    """
    wanted = {k: tuple(v.shape) for k, v in head.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in tensors.items()}
    if wanted != got:
        wrong = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
        raise CheckpointError(
            f"{path}: {wrong[0]} has shape {got.get(wrong[0])}, expected {wanted.get(wrong[0])} ({len(wrong)} tensors "
            "differ)"
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity")
    head.load_state_dict({k: v.float() for k, v in tensors.items()})
    head.requires_grad_(False)


class EncoderHead(nn.Module):
    """A head that is of use with the latents of one encoder, which its `config` names. Abstract.

    Attributes:
        what: what it is and does with latents, for errors.
        trained_by: the command that trains one.
        config: of the head.
    """

    what: ClassVar[str]
    trained_by: ClassVar[str]
    config: Any
    mean: Tensor
    std: Tensor

    def add_scales(self, width: int) -> None:
        """Make the buffers `mean` and `std`, `[width]` each: those of the training latents."""
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def fit_scales(self, latents: Tensor) -> None:
        """Take mean and standard deviation from training latents `[n, z_dim]`."""
        self.mean.copy_(latents.mean(0))
        self.std.copy_(latents.std(0).clamp_min(1e-6))

    def standardize(self, z: Tensor) -> Tensor:
        """Latents `[n, z_dim]` with the mean 0 and the standard deviation 1 of the training latents in each number."""
        return (z.to(self.mean) - self.mean) / self.std

    def check_latents(self, z: Tensor, what: str) -> None:
        """Look whether latents that a caller brings fit.

        Raises:
            LatentError: they are not `[n, z_dim]`, or hold NaN or infinity.
        """
        if z.dim() != 2 or z.shape[1] != self.config.z_dim:
            raise LatentError(f"latents of {what} have shape {tuple(z.shape)}, expected [n, {self.config.z_dim}]")
        if not torch.isfinite(z).all():
            raise LatentError(f"latents of {what} hold NaN or infinity")

    def check_encoder(self, encoder_id: str) -> None:
        """Compare the encoder with the one whose latents it was trained on.

        Raises:
            CheckpointError: it is another one.
        """
        if self.config.encoder_id != encoder_id:
            raise CheckpointError(
                f"this {self.what} latents of encoder {self.config.encoder_id!r}, the model's is {encoder_id!r}; "
                f"train one for this model: {self.trained_by}"
            )


class StoredHead(EncoderHead):
    """A head whose configuration is kept in its model's. Abstract; made from `config` alone."""

    def save(self, path: Path, dtype: torch.dtype | None = None) -> None:
        """Write the weights as safetensors, cast to `dtype`. The configuration is kept in the model's."""
        tensors = {name: t.detach().to(dtype or t.dtype).contiguous().cpu() for name, t in self.state_dict().items()}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path, config: Any, encoder_id: str) -> Self:
        """Read and check a head; it comes frozen and in evaluation mode.

        Args:
            path: as written by `save`.
            config: its configuration.
            encoder_id: of the model that it is to serve.

        Raises:
            CheckpointError: the file is missing, damaged, of other shapes or holds NaN, or the head belongs to another
                encoder.
        """
        head = cls(config)
        head.check_encoder(encoder_id)
        load_head(head, read_tensors(path), path)
        return head.eval()
