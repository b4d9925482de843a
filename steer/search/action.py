"""What a search may do with a span, and where its text should go."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from steer.errors import SearchError
from steer.latents.pull import Pull
from steer.text import is_number


@dataclass(frozen=True)
class Action:
    """One entry of the menu: how hard to steer a span. The search finds out what pays where.

    Attributes:
        strength: factor on the weights of the pulls, which are then cut at 1; 0 writes unguided.
        guidance_scale: of classifier-free guidance where the span is steered; 1 does without.
        temperature: instead of that of the sampling settings.

    Raises:
        SearchError: at construction, for a value out of range.
    """

    strength: float = 0.0
    guidance_scale: float = 1.0
    temperature: float | None = None

    def __post_init__(self) -> None:
        given = (self.strength, self.guidance_scale, 1.0 if self.temperature is None else self.temperature)
        if not all(map(is_number, given)) or not 0 <= self.strength <= 100 or not 0 <= self.guidance_scale <= 20:
            raise SearchError(f"strength lies in [0, 100] and guidance_scale in [0, 20]; got {self}")
        if self.temperature is not None and not 1e-4 <= self.temperature <= 100:
            raise SearchError(f"an action's temperature lies in [0.0001, 100]; got {self.temperature!r}")


@dataclass(frozen=True, eq=False)
class Aim:
    """Where the text behind one root should go.

    Attributes:
        pulls: what an action of strength 1 mixes into the draft, with a weight for each depth; see `Pull`.
        terminal: float32 `[z]`, what rewards compare with; None where none does.
        avoid: float32 `[a, z]`, what rewards hold against a text.
    """

    pulls: Sequence[Pull] = ()
    terminal: Tensor | None = None
    avoid: Tensor | None = None
