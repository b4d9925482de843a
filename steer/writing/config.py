"""How to write: one record and one set of defaults, for Python, command line, scenarios, experiments and search."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict, Unpack, final

from torch import Tensor

from steer.errors import GuidanceError
from steer.latents.schedules import ScheduleConfig
from steer.writing.limits import Limits
from steer.writing.proposals import Drafts
from steer.writing.sampling import SamplingConfig

LARGEST_SCALE = 20.0


@final
@dataclass(frozen=True, kw_only=True)
class WritingConfig:
    """How to write.

    Attributes:
        spans: how many to write.
        sampling: how tokens are drawn.
        guidance_scale: of classifier-free guidance where a pull is at work: a number, or one for each span; 1 does
            without, above 1 costs a second pass.
        schedule: by which a goal that is given as a text or latent is pulled to; a `Pull` brings its own.
        limits: what may not be written.
        drafts: how the model drafts: `write` writes a span and encodes it; `head` asks the draft head, which saves half
            of the tokens.

    Raises:
        GuidanceError: at construction, for a value out of range; says what came.
    """

    spans: int = 6
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    guidance_scale: float | Sequence[float] | Tensor = 1.25
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    limits: Limits = field(default_factory=Limits)
    drafts: Drafts = "write"

    def __post_init__(self) -> None:
        if isinstance(self.spans, bool) or not isinstance(self.spans, int) or self.spans < 1:
            raise GuidanceError(f"spans must be an int of at least 1; got {self.spans!r}")
        for name, kind in (("sampling", SamplingConfig), ("schedule", ScheduleConfig), ("limits", Limits)):
            if not isinstance(value := getattr(self, name), kind):
                raise GuidanceError(f"{name} must be a {kind.__name__}; got {value!r:.80} of {type(value).__name__}")
        self.scales()

    def scales(self) -> list[float]:
        """The guidance scale of each span.

        Raises:
            GuidanceError: there are fewer than spans, or one is out of range.
        """
        given = self.guidance_scale
        if isinstance(given, Tensor):
            given = given.tolist()
        try:
            scales = [float(given)] * self.spans if isinstance(given, int | float) else [float(x) for x in given]
        except (TypeError, ValueError) as error:
            raise GuidanceError(
                f"guidance_scale must be a number (1 does without), or one for each span; got {given!r:.80}"
            ) from error
        if len(scales) < self.spans:
            raise GuidanceError(
                f"the schedule of guidance scales has {len(scales)} steps for {self.spans} spans; give one per span, "
                "or a number"
            )
        if not all(0 <= scale <= LARGEST_SCALE for scale in scales):
            raise GuidanceError(
                f"guidance_scale lies in [0, {LARGEST_SCALE:g}]: 0 writes unguided, 1 does without; got {given!r:.80}"
            )
        return scales


class WritingOptions(TypedDict, total=False):
    """The fields of a `WritingConfig` as keyword arguments."""

    spans: int
    sampling: SamplingConfig
    guidance_scale: float | Sequence[float] | Tensor
    schedule: ScheduleConfig
    limits: Limits
    drafts: Drafts


def writing_config(config: WritingConfig | None = None, **options: Unpack[WritingOptions]) -> WritingConfig:
    """A configuration with some fields set; None, as all that is not set, stands for what `config` says.

    Raises:
        GuidanceError: see `WritingConfig`; or there is no such option.
    """
    known = {each.name for each in dataclasses.fields(WritingConfig)}
    if unknown := sorted(set(options) - known):
        raise GuidanceError(f"there is no option {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    given = {name: value for name, value in options.items() if value is not None or name == "guidance_scale"}
    return dataclasses.replace(config or WritingConfig(), **given)
