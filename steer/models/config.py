"""What a latent model is, as a value: the record that is saved as `steer_config.json` beside the adapters."""

from pathlib import Path
from typing import Any

import pydantic
import torch
from transformers import PreTrainedModel

from steer.errors import BaseMismatch, CheckpointError
from steer.heads.bottleneck import LatentHead
from steer.heads.prior import PriorConfig
from steer.heads.reach import ReachConfig
from steer.models.adapters import ENCODER
from steer.models.layouts import LAYOUTS, LayoutName
from steer.models.state_encoder import StateEncoderConfig
from steer.records import first_error

CONFIG_NAME = "steer_config.json"
FORMAT_VERSION = 1


class BaseIdentity(pydantic.BaseModel):
    """Which base model the adapters were trained on.

    Attributes:
        name: a hub id, a path, or `base` for a base stored inside the checkpoint folder.
        model_type: the architecture, as `transformers` names it.
        hidden_size, vocab_size, layers: widths that must agree.
        probe: 16 embedding values at fixed places. They survive a change of dtype to 2 %, and differ between any two
            trained models.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    model_type: str
    hidden_size: int
    vocab_size: int
    layers: int
    probe: list[float] = []

    @classmethod
    def of(cls, model: PreTrainedModel, name: str) -> "BaseIdentity":
        """The identity of a loaded base model."""
        config = model.config.get_text_config()
        weight: Any = model.get_input_embeddings().weight
        flat = weight.detach().reshape(-1)
        places = torch.linspace(0, flat.numel() - 1, 16, dtype=torch.float64).long()
        return cls(
            name=name,
            model_type=config.model_type,
            hidden_size=config.hidden_size,
            vocab_size=weight.shape[0],
            layers=config.num_hidden_layers,
            probe=[round(v, 6) for v in flat[places.to(flat.device)].float().tolist()],
        )

    @classmethod
    def planned(cls, config: Any, name: str) -> "BaseIdentity":
        """The identity that a base of a `transformers` configuration will have, as far as that says it: no `probe`."""
        text = config.get_text_config()
        return cls(
            name=name,
            model_type=text.model_type,
            hidden_size=text.hidden_size,
            vocab_size=text.vocab_size,
            layers=text.num_hidden_layers,
        )

    def check(self, found: "BaseIdentity") -> None:
        """Compare with the base that was found.

        Raises:
            BaseMismatch: it is another model; says in what it differs.
        """
        for field in ("model_type", "hidden_size", "vocab_size", "layers"):
            if getattr(self, field) != getattr(found, field):
                raise BaseMismatch(
                    f"these adapters belong to a base with {field} {getattr(self, field)!r} ({self.name}); got "
                    f"{getattr(found, field)!r} ({found.name})"
                )
        scale = max((abs(v) for v in self.probe), default=0.0)
        if any(
            abs(a - b) > 0.02 * max(abs(a), 0.05 * scale) + 1e-6 for a, b in zip(self.probe, found.probe, strict=False)
        ):
            raise BaseMismatch(
                f"the base {found.name} has the shape of {self.name} but other weights; use the base that the "
                "adapters were trained on"
            )


class _Version(pydantic.BaseModel):
    format_version: int = FORMAT_VERSION


class LatentConfig(pydantic.BaseModel):
    """The settings of a latent model.

    Attributes:
        layout: `interleaved` (`[context] z1 x1 z2 x2 ...`) or `minihf` (BigVAE: `[context][z][span + next span]`).
        span_tokens: S, tokens per span.
        z_dim: width of a latent.
        soft_tokens: embedding positions that one latent becomes.
        max_context: visible tokens that the router was trained to see; longer contexts are cut on the left.
        prefix_space: whether texts get a leading space before they are encoded, as they have inside a story.
        latent_norm: mean norm of a posterior mean on validation text, for calibration.
        encoder_id: identity of the encoder; vectors with another one must not be mixed.
        state_encoder: of the encoder that reads the frozen base's states, where it takes the encoder adapter's place.
        files: SHA-256 of each weight file in the folder.
        reached_similarity: cosine above which a terminal counts as reached, calibrated on stories.
        reach: settings of the reach head, where the folder holds one.
        prior: settings of the draft head, where the folder holds one.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    name: str = "latent-model"
    layout: LayoutName = "interleaved"
    span_tokens: int = pydantic.Field(32, ge=1)
    z_dim: int = pydantic.Field(256, ge=1)
    soft_tokens: int = pydantic.Field(1, ge=1)
    max_context: int = pydantic.Field(320, ge=1)
    prefix_space: bool = True
    latent_norm: float | None = None
    reached_similarity: float | None = None
    encoder_id: str = ""
    base: BaseIdentity
    state_encoder: StateEncoderConfig | None = None
    files: dict[str, str] = {}
    reach: ReachConfig | None = None
    prior: PriorConfig | None = None

    @pydantic.model_validator(mode="after")
    def _widths(self) -> "LatentConfig":
        if self.state_encoder is not None and self.state_encoder.z_dim != self.z_dim:
            raise ValueError(
                f"its state encoder gives latents of {self.state_encoder.z_dim}, not of z_dim {self.z_dim}"
            )
        return self

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the adapters: the layout's, without the encoder where the frozen base's states are read."""
        return tuple(r for r in LAYOUTS[self.layout].roles if r != ENCODER or self.state_encoder is None)

    @property
    def encoder_identity(self) -> str:
        """What a store of this encoder's vectors calls it."""
        return self.encoder_id or f"{self.name}:unidentified"

    def new_head(self) -> LatentHead:
        """Pooling (unless there is a state encoder) and soft tokens of these widths, of PyTorch's start values."""
        parts = {"with_null": LAYOUTS[self.layout].has_null, "with_pooling": self.state_encoder is None}
        return LatentHead(self.base.hidden_size, self.z_dim, self.soft_tokens, **parts)

    @classmethod
    def load(cls, folder: Path) -> "LatentConfig":
        """Read `steer_config.json`.

        Raises:
            CheckpointError: the file is missing, no JSON, of a newer format, or has unknown or wrong fields.
        """
        path = folder / CONFIG_NAME
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{folder} has no {CONFIG_NAME}: it is no steer model (a MiniHF folder? use LatentModel.from_minihf)"
            ) from error
        try:
            # The version first: what else a newer format holds cannot be judged here.
            version = _Version.model_validate_json(data).format_version
            if version > FORMAT_VERSION:
                raise CheckpointError(
                    f"{path} has format {version}; this version reads up to {FORMAT_VERSION}: upgrade steer"
                )
            return cls.model_validate_json(data)
        except pydantic.ValidationError as error:
            raise CheckpointError(f"{path} is damaged or of another version: {first_error(error)}") from error

    def save(self, folder: Path) -> None:
        """Write `steer_config.json`."""
        (folder / CONFIG_NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
