"""Training recipes: one YAML file describes every stage of a packaged model, so that one command reproduces it.

Files enter here, so the records are pydantic models that refuse unknown keys.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from steer.errors import RecipeError
from steer.heads.prior import PriorConfig
from steer.heads.reach import ReachConfig
from steer.models.config import LatentConfig
from steer.models.layouts import LAYOUTS
from steer.models.quantization import LoadIn
from steer.models.state_encoder import StateEncoderConfig
from steer.records import StrictRecord
from steer.yaml_file import read_yaml


class SourceRecipe(StrictRecord):
    """One source of text.

    A path below the data root (or a `datasets` name) and how often each of its stories occurs per epoch.
    """

    path: str
    repeat: float = pydantic.Field(1.0, gt=0)
    text_field: str = "text"
    form: Literal["prose", "script"] = pydantic.Field(
        "prose",
        description="script: stories with speech, turned into plays; others are left out",
    )


class DataRecipe(StrictRecord):
    """The sources, and the share of stories kept for validation."""

    sources: list[SourceRecipe] = pydantic.Field(min_length=1)
    validation_share: float = pydantic.Field(0.02, gt=0, lt=0.5)


def _word(value: Any) -> Any:
    """YAML reads a bare `on` or `off` as a truth value."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class TrainRecipe(StrictRecord):
    """Settings of one stage's optimisation, in the words of `transformers.TrainingArguments` where it has them."""

    steps: int = pydantic.Field(gt=0)
    batch_size: int = pydantic.Field(8, gt=0, description="sequences in one forward pass on one device")
    gradient_accumulation_steps: int = pydantic.Field(1, gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = pydantic.Field(1e-3, gt=0, description="of AdamW")
    head_learning_rate: float | None = pydantic.Field(
        None, gt=0, description="of AdamW for the heads of a latent model; by default learning_rate"
    )
    muon_learning_rate: float = pydantic.Field(0.02, gt=0, description="of Muon, for the hidden matrices")
    adam_beta2: float = pydantic.Field(0.98, gt=0, lt=1, description="of AdamW")
    weight_decay: float = pydantic.Field(0.01, ge=0)
    warmup_steps: int = pydantic.Field(50, ge=0)
    decay_share: float = pydantic.Field(
        0.4, ge=0, le=1, description="share of the steps, at the end, in which the rate falls to zero"
    )
    max_grad_norm: float = pydantic.Field(1.0, gt=0)
    eval_every: int = pydantic.Field(200, gt=0)
    save_every: int = pydantic.Field(200, gt=0)
    bf16: bool = True
    compile: Annotated[Literal["auto", "on", "off"], pydantic.BeforeValidator(_word)] = pydantic.Field(
        "auto", description="torch.compile; auto: where a C++ compiler or a GPU is there"
    )
    gradient_checkpointing: bool = False


class BaseRecipe(StrictRecord):
    """A base model trained from scratch.

    A byte-level BPE tokenizer and any configuration that `transformers.AutoConfig` knows.
    """

    vocab_size: int = pydantic.Field(4096, ge=300)
    architecture: dict[str, Any] = pydantic.Field(description="fields of the configuration, with `model_type`")
    block: int = pydantic.Field(512, ge=8, description="tokens per training sequence")
    packing: Literal["joined", "bordered"] = pydantic.Field(
        "joined", description="bordered: no attention across the border of two stories of a sequence"
    )
    train: TrainRecipe


class StateEncoderRecipe(StrictRecord):
    """An encoder that is not trained: states of the frozen base, on principal axes that are fitted to the stories."""

    parts: int = pydantic.Field(4, ge=1, description="into which a span is cut; each has a soft token")
    layer: int = pydantic.Field(9, ge=1, description="whose input is read; so many layers are run")
    embedding_axes: int = pydantic.Field(40, ge=1, description="principal axes of a part's mean input embedding")
    layer_axes: int = pydantic.Field(24, ge=1, description="principal axes of a part's mean state")
    rarity: float = pydantic.Field(
        1e-3, gt=0, description="a of the weights a / (a + share of the token) in these means"
    )
    spread: float = pydantic.Field(
        0.5, ge=0, le=1, description="power of an axis' standard deviation that divides it: 1 makes all axes alike"
    )
    spans: int = pydantic.Field(1024, ge=2, description="that the axes are fitted to")

    def config(self) -> StateEncoderConfig:
        """Of the encoder; its begin token is the base's affair."""
        names = ("parts", "layer", "embedding_axes", "layer_axes")
        return StateEncoderConfig(**{name: getattr(self, name) for name in names})


class LatentRecipe(StrictRecord):
    """The autoencoder stage: encoder, heads and router on the frozen base (design: interleaved layout)."""

    layout: Literal["interleaved"] = "interleaved"
    span_tokens: int = pydantic.Field(32, ge=4)
    z_dim: int = pydantic.Field(256, ge=2)
    soft_tokens: int = pydantic.Field(4, ge=1)
    max_context: int = pydantic.Field(
        320, ge=1, description="visible tokens kept when writing; longer contexts are cut on the left"
    )
    lora_rank: int = pydantic.Field(64, ge=1)
    lora_alpha: int = pydantic.Field(64, ge=1)
    load_in: LoadIn = pydantic.Field("float32", description="of the frozen base; adapters and heads are float32")
    spans: int = pydantic.Field(6, ge=1, description="spans per training sequence")
    context_lengths: list[int] = pydantic.Field(
        [24, 64, 160], min_length=1, description="context before the first span, drawn per batch"
    )
    beta: float = pydantic.Field(0.02, ge=0)
    beta_start: float = pydantic.Field(
        0.2, ge=0, le=1, description="share of the steps after which beta begins to rise"
    )
    beta_full: float = pydantic.Field(0.7, ge=0, le=1, description="share of the steps at which beta is reached")
    isolated_prob: float = pydantic.Field(
        0.4, ge=0, le=1, description="share of batches whose spans have no context, so that z carries all"
    )
    partial_prob: float = pydantic.Field(
        0.4, ge=0, le=1, description="share of spans of which the encoder sees only a part"
    )
    null_prob: float = pydantic.Field(0.15, ge=0, le=1, description="share of spans written from the null latent")
    null_sequence_prob: float = pydantic.Field(
        0.05, ge=0, le=1, description="share of sequences written from the null latent alone"
    )
    noise: float = pydantic.Field(1.0, ge=0, description="standard deviation of the posterior noise in training")
    tied_start: bool = pydantic.Field(
        True, description="soft tokens start as the encoder's map turned round, not small and random"
    )
    state_encoder: StateEncoderRecipe | None = pydantic.Field(
        None, description="read latents off states of the frozen base, and train the router and the heads alone"
    )
    train: TrainRecipe

    @pydantic.model_validator(mode="after")
    def _widths(self) -> "LatentRecipe":
        if self.state_encoder is not None:
            wanted, parts = self.state_encoder.config().z_dim, self.state_encoder.parts
            if self.z_dim != wanted:
                raise ValueError(f"a state encoder of these axes gives latents of {wanted}; set z_dim: {wanted}")
            if self.soft_tokens < parts:
                raise ValueError(f"{parts} parts need as many soft tokens at least; set soft_tokens: {parts + 1}")
            if self.span_tokens < parts:
                raise ValueError(f"a span of {self.span_tokens} tokens has no {parts} parts")
        return self

    @property
    def steps(self) -> int:
        """Of the stage."""
        return self.train.steps


class MiniHFRecipe(StrictRecord):
    """The autoencoder stage in BigVAE's layout and by MiniHF's two steps; the defaults are BigVAE's."""

    layout: Literal["minihf"]
    span_tokens: int = pydantic.Field(64, ge=4)
    z_dim: int = pydantic.Field(768, ge=2)
    max_context: int = pydantic.Field(
        1920, ge=1, description="visible tokens kept when writing; longer contexts are cut on the left"
    )
    load_in: LoadIn = pydantic.Field("float32", description="of the frozen base; BigVAE's is 4bit")
    lora_rank: int = pydantic.Field(32, ge=1)
    lora_alpha: int = pydantic.Field(8, ge=1)
    beta: float = pydantic.Field(0.1, ge=0)
    beta_steps: int = pydantic.Field(50_000, ge=1, description="steps in which beta rises from 0")
    context_drop: float = pydantic.Field(0.5, ge=0, le=1, description="share of rows whose context is hidden")
    context_lengths: list[int] = pydantic.Field(
        [64, 256, 768, 1920], min_length=1, description="context of the router, drawn per batch"
    )
    noise: float = pydantic.Field(1.0, ge=0, description="standard deviation of the posterior noise in training")
    train: TrainRecipe = pydantic.Field(description="of encoder and decoder")
    router: TrainRecipe

    @property
    def soft_tokens(self) -> int:
        """One: BigVAE's layout has a single slot for a latent."""
        return 1

    @property
    def steps(self) -> int:
        """Of both steps together."""
        return self.train.steps + self.router.steps


def shape_of(latent: LatentRecipe | MiniHFRecipe | LatentConfig) -> dict[str, Any]:
    """What a recipe's section, or a model, says of its shapes: options of `steer.models.build.new_config`."""
    names = ("layout", "span_tokens", "z_dim", "soft_tokens", "max_context")
    states = getattr(latent, "state_encoder", None)
    states = states.config() if isinstance(states, StateEncoderRecipe) else states
    return {name: getattr(latent, name) for name in names} | {"state_encoder": states}


def _layout(section: Any) -> Any:
    return section.get("layout", "interleaved") if isinstance(section, dict) else getattr(section, "layout", None)


class ReachRecipe(StrictRecord):
    """The reach stage: a head that tells how near a terminal is, trained on latents of stories."""

    stories: int = pydantic.Field(default=12_000, ge=20, description="training stories that are encoded, at most")
    spans: int = pydantic.Field(default=16, ge=2, description="spans per story; of a longer one a stretch is taken")
    width: int = pydantic.Field(default=128, ge=8, multiple_of=8, description="of the hidden layers")
    buckets: list[int] = pydantic.Field(
        default=[0, 1, 2, 3, 4, 5, 7, 10], description="distances in spans at which buckets begin; the last has no end"
    )
    other_share: float = pydantic.Field(default=0.25, ge=0, le=1, description="share of terminals of any other story")
    rival_share: float = pydantic.Field(
        default=0.2, ge=0, le=1, description="share of terminals of a story with a shared name"
    )
    earlier_share: float = pydantic.Field(
        default=0.05, ge=0, le=1, description="share of terminals from before the state"
    )
    dropout: float = pydantic.Field(default=0.3, ge=0, lt=1)
    noise: float = pydantic.Field(default=0.5, ge=0, description="added to latents, in their standard deviations")
    steps: int = pydantic.Field(default=3000, gt=0)
    batch_size: int = pydantic.Field(default=512, ge=16, description="pairs per step")
    learning_rate: float = pydantic.Field(default=2e-3, gt=0)
    weight_decay: float = pydantic.Field(default=0.01, ge=0)

    @pydantic.model_validator(mode="after")
    def _head(self) -> "ReachRecipe":
        self.config("", 1)
        return self

    def config(self, encoder_id: str, z_dim: int) -> ReachConfig:
        """The configuration of the head before it is calibrated."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name in ReachConfig.model_fields}
        return ReachConfig(encoder_id=encoder_id, z_dim=z_dim, **own)


class PriorRecipe(StrictRecord):
    """The prior stage: a draft head that draws the next latent, trained on stories."""

    stories: int = pydantic.Field(default=4000, ge=20, description="training stories that are read, at most")
    spans: int = pydantic.Field(default=8, ge=1, description="spans per story")
    width: int = pydantic.Field(default=256, ge=8, description="of the hidden layers")
    components: int = pydantic.Field(default=1, ge=1, description="Gaussians of the mixture")
    variance: float = pydantic.Field(
        default=0.99, gt=0, le=1, description="share of the latents' variance that the principal axes it tells hold"
    )
    dropout: float = pydantic.Field(default=0.3, ge=0, lt=1)
    noise: float = pydantic.Field(default=0.2, ge=0, description="added to states, in their standard deviations")
    steps: int = pydantic.Field(default=3000, gt=0)
    batch_size: int = pydantic.Field(default=256, ge=1, description="places in stories per step")
    learning_rate: float = pydantic.Field(default=2e-3, gt=0)
    weight_decay: float = pydantic.Field(default=0.05, ge=0)

    def config(self, encoder_id: str, state_dim: int, z_dim: int, axes: int) -> PriorConfig:
        """The configuration of the head."""
        own = {"width": self.width, "components": self.components}
        return PriorConfig(encoder_id=encoder_id, state_dim=state_dim, z_dim=z_dim, axes=axes, **own)


class PackageRecipe(StrictRecord):
    """What is written at the end."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    license: str = "other"
    pairs: int = pydantic.Field(
        default=200, ge=1, description="context and terminal pairs of the evaluation in the card"
    )
    description: str = ""
    data: str = pydantic.Field(
        default="", description="Markdown for the card: where the text comes from, and its licences"
    )
    limits: str = pydantic.Field(default="", description="Markdown for the card: what the model cannot do")


class Recipe(StrictRecord):
    """All stages of one model. Give either `base` (trained here) or `pretrained` (a folder or hub id).

    A recipe that `continues` another (a file beside it) starts from that one's base, adapters and heads: its stages
    base and autoencoder are run first, if they are not done. With `base` the base is trained on, without it stays.
    """

    name: str
    continues: str | None = None
    seed: int = 0
    data: DataRecipe
    base: BaseRecipe | None = None
    pretrained: str | None = None
    autoencoder: Annotated[
        Annotated[LatentRecipe, pydantic.Tag("interleaved")] | Annotated[MiniHFRecipe, pydantic.Tag("minihf")],
        pydantic.Discriminator(_layout),
    ]
    reach: ReachRecipe | None = None
    prior: PriorRecipe | None = None
    package: PackageRecipe = PackageRecipe()

    @pydantic.model_validator(mode="after")
    def _one_base(self) -> "Recipe":
        if self.continues is not None:
            if self.pretrained is not None:
                raise ValueError("a recipe that continues another has its base; leave out `pretrained`")
            if LAYOUTS[self.autoencoder.layout].has_decoder:
                raise ValueError("layout minihf cannot continue another recipe's encoder and router; leave it out")
        elif (self.base is None) == (self.pretrained is None):
            raise ValueError("give exactly one of `base` (a base model to train) and `pretrained` (a folder or hub id)")
        return self


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file.

    Raises:
        TextError: the file is missing, unreadable, or not UTF-8.
        RecipeError: it is no YAML mapping, has unknown or equal keys or wrong values; each problem is named with its
            line and place.
    """
    file = read_yaml(path, "recipe", expected="name, data and autoencoder", error=RecipeError)
    with file.checked(Recipe):
        return Recipe.model_validate(file.data)
