"""The options of `steer write` that say how a text is written, and what they make of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

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


Method = Literal["unguided", "fixed", "annealed", "search", "guided-search"]  # how a terminal is mixed in
# The schedules of `steer.latents.schedules` and the ways of drafting of `steer.writing.proposals`, named here so that
# `--help` needs no torch.
Schedule = Literal["constant", "linear", "linear_bigvae", "cosine", "bridge"]
Drafts = Literal["write", "head"]


@dataclass(frozen=True)
class WriteOptions:
    """How to write: everything but the texts, the seed and the model.

    Raises:
        typer.BadParameter: options that belong to another method.
    """

    spans: Annotated[int, typer.Option("--spans", "-n", min=1, help="Spans to write.")] = 6
    method: Annotated[Method, typer.Option("--method", help="How the terminal is mixed in.")] = "annealed"
    schedule: Annotated[
        Schedule | None, typer.Option("--schedule", help="Of annealed guidance; bridge if not given.")
    ] = None
    weight: Annotated[
        float | None, typer.Option("--weight", min=0, max=1, help="Constant weight (fixed, 0.5), or the last one.")
    ] = None
    guidance_scale: GuidanceScaleOption = 1.25
    drafts: Annotated[
        Drafts, typer.Option("--drafts", help="Write a span as a draft, or ask the model's draft head.")
    ] = "write"
    temperature: TemperatureOption = 0.7
    top_p: TopPOption = 0.95
    long: Annotated[
        Long | None,
        typer.Option("--long", help="A text longer than a span; by default an error, with --batch its mean."),
    ] = None

    def __post_init__(self) -> None:
        name = self.method
        if self.schedule is not None and name not in ("annealed", "guided-search"):
            raise typer.BadParameter(f"--schedule belongs to --method annealed or guided-search; got --method {name}")
        if self.weight is not None and not self.guided:
            raise typer.BadParameter(f"--weight says how much of the terminal is mixed in; --method {name} mixes none")

    @property
    def searches(self) -> bool:
        """Whether many candidates are written and the best is taken."""
        return self.method in ("search", "guided-search")

    @property
    def guided(self) -> bool:
        """Whether nothing can be written without a terminal."""
        return self.method not in ("unguided", "search")

    @property
    def how_long(self) -> str:
        """What is done with a terminal that is longer than a span, as `LatentModel.encode` has it."""
        return self.long or "error"

    def pull_schedule(self) -> "ScheduleConfig":
        """The schedule of the pull: a constant weight, or one that ends at `weight`."""
        from steer.latents.schedules import ScheduleConfig

        if self.method == "fixed":
            return ScheduleConfig("constant", start=0.5 if self.weight is None else self.weight)
        name = self.schedule or "bridge"
        return ScheduleConfig(name, **{"start" if name == "constant" else "end": self.weight})

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
            drafts=self.drafts,
        )

    def write(
        self, model: "LatentModel", contexts: Sequence[str], terminals: Sequence[str], seeds: Sequence[int]
    ) -> "list[Written]":
        """Write a batch of rows without a search. `terminals` may be empty where nothing guides."""
        from steer.latents.pull import Pull
        from steer.writing.guided import write_guided

        config, pulls = self.config(), []
        if self.method != "unguided":
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
