"""What a latent model is, as a value: the record that is saved as `steer_config.json` beside the adapters."""

from pathlib import Path
from typing import Any, Literal

import pydantic
import torch

from steer.errors import BaseMismatch, CheckpointError

CONFIG_NAME = "steer_config.json"
FORMAT_VERSION = 1

Layout = Literal["interleaved", "minihf"]


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
    def of(cls, model: Any, name: str) -> "BaseIdentity":
        """The identity of a loaded base model."""
        config = model.config.get_text_config()
        weight = model.get_input_embeddings().weight
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
        files: SHA-256 of each weight file in the folder.
        reached_similarity: cosine above which a terminal counts as reached, calibrated on stories.
        reach: settings of the reach head, where the folder holds one.
        prior: settings of the draft head, where the folder holds one.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    name: str = "latent-model"
    layout: Layout = "interleaved"
    span_tokens: int = pydantic.Field(32, ge=1)
    z_dim: int = pydantic.Field(256, ge=1)
    soft_tokens: int = pydantic.Field(1, ge=1)
    max_context: int = pydantic.Field(320, ge=1)
    prefix_space: bool = True
    latent_norm: float | None = None
    reached_similarity: float | None = None
    encoder_id: str = ""
    base: BaseIdentity
    files: dict[str, str] = {}
    reach: ReachConfig | None = None
    prior: PriorConfig | None = None

    @property
    def encoder_identity(self) -> str:
        """What a store of this encoder's vectors calls it."""
        return self.encoder_id or f"{self.name}:unidentified"

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
            first = error.errors()[0]
            raise CheckpointError(
                f"{path} is damaged or of another version: {'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
            ) from error

    def save(self, folder: Path) -> None:
        """Write `steer_config.json`."""
        (folder / CONFIG_NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
