"""The options of `steer write` that say how a text is written, and what they make of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli._models import load_model
from agents.cli._options import GuidanceScaleOption, Long, TemperatureOption, TopPOption
from agents.cli._output import Output
from agents.cli._search_options import SearchOptions

if TYPE_CHECKING:
    from steer.latents.schedules import ScheduleConfig
    from steer.models.latent_model import LatentModel
    from steer.writing.config import WritingConfig
    from steer.writing.guided import Written


class Method(StrEnum):
    """How a terminal is mixed in."""

    UNGUIDED = "unguided"
    FIXED = "fixed"
    ANNEALED = "annealed"
    SEARCH = "search"
    GUIDED_SEARCH = "guided-search"

    @property
    def searches(self) -> bool:
        """Whether many candidates are written and the best is taken."""
        return self in (Method.SEARCH, Method.GUIDED_SEARCH)

    @property
    def needs_terminal(self) -> bool:
        """Whether nothing can be written without one."""
        return self not in (Method.UNGUIDED, Method.SEARCH)


class Schedule(StrEnum):
    """The schedules of `steer.latents.schedules`, named here so that `--help` needs no torch."""

    CONSTANT = "constant"
    LINEAR = "linear"
    LINEAR_BIGVAE = "linear_bigvae"
    COSINE = "cosine"
    BRIDGE = "bridge"


class Drafts(StrEnum):
    """How the model proposes what a terminal is mixed into; see `steer.writing.proposals`."""

    WRITE = "write"
    HEAD = "head"


@dataclass(frozen=True)
class WriteOptions:
    """How to write: everything but the texts, the seed and the model.

    Raises:
        typer.BadParameter: options that belong to another method.
    """

    spans: Annotated[int, typer.Option("--spans", "-n", min=1, help="Spans to write.")] = 6
    method: Annotated[Method, typer.Option("--method", help="How the terminal is mixed in.")] = Method.ANNEALED
    schedule: Annotated[
        Schedule | None, typer.Option("--schedule", help="Of annealed guidance; bridge if not given.")
    ] = None
    weight: Annotated[
        float | None, typer.Option("--weight", min=0, max=1, help="Constant weight (fixed, 0.5), or the last one.")
    ] = None
    guidance_scale: GuidanceScaleOption = 1.25
    drafts: Annotated[
        Drafts, typer.Option("--drafts", help="Write a span as a draft, or ask the model's draft head.")
    ] = Drafts.WRITE
    temperature: TemperatureOption = 0.7
    top_p: TopPOption = 0.95
    long: Annotated[
        Long | None,
        typer.Option("--long", help="A text longer than a span; by default an error, with --batch its mean."),
    ] = None

    def __post_init__(self) -> None:
        name = self.method.value
        if self.schedule is not None and self.method not in (Method.ANNEALED, Method.GUIDED_SEARCH):
            raise typer.BadParameter(f"--schedule belongs to --method annealed or guided-search; got --method {name}")
        if self.weight is not None and not self.method.needs_terminal:
            raise typer.BadParameter(f"--weight says how much of the terminal is mixed in; --method {name} mixes none")

    @property
    def how_long(self) -> str:
        """What is done with a terminal that is longer than a span, as `LatentModel.encode` has it."""
        return (self.long or Long.ERROR).value

    def pull_schedule(self) -> "ScheduleConfig":
        """The schedule of the pull: a constant weight, or one that ends at `weight`."""
        from steer.latents.schedules import ScheduleConfig

        if self.method is Method.FIXED:
            return ScheduleConfig("constant", start=0.5 if self.weight is None else self.weight)
        name = self.schedule or Schedule.BRIDGE
        if name is Schedule.CONSTANT:
            return ScheduleConfig(name.value, start=self.weight)
        return ScheduleConfig(name.value, end=self.weight)

    def config(self) -> "WritingConfig":
        """How to write, as the library has it.

        Raises:
            SteerError: a value out of range.
        """
        from steer.writing.config import WritingConfig
        from steer.writing.sampling import SamplingConfig

        return WritingConfig(
            spans=self.spans,
            sampling=SamplingConfig(temperature=self.temperature, top_p=self.top_p),
            guidance_scale=self.guidance_scale,
            schedule=self.pull_schedule(),
            drafts=self.drafts.value,
        )

    def write(
        self, model: "LatentModel", contexts: Sequence[str], terminals: Sequence[str], seeds: Sequence[int]
    ) -> "list[Written]":
        """Write a batch of rows without a search. `terminals` may be empty where nothing guides."""
        from steer.latents.pull import Pull
        from steer.writing.guided import write_guided

        config, pulls = self.config(), []
        if self.method is not Method.UNGUIDED:
            latents = model.encode(list(terminals), long=self.how_long)
            pulls.append(Pull(latents, config.schedule.weights(self.spans)))
        return write_guided(model, list(contexts), pulls=pulls, seeds=list(seeds), config=config)


@dataclass(frozen=True)
class Job:
    """A command to write.

    Attributes:
        say: where to speak.
        how: how to write.
        options: of a search.
        seed: of the command; in a batch each row's is derived from it and the row's id.
        model: its name, as the command has it.
        as_json: whether results are printed as JSON.
    """

    say: Output
    how: WriteOptions
    options: SearchOptions
    seed: int
    model: str | None
    as_json: bool

    def load_model(self) -> "LatentModel":
        """The model that writes."""
        return load_model(self.say, self.model)
