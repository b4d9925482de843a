"""The console of `rich` on which everything is text: no markup, no names of emoji, no control characters."""

from collections.abc import Iterable
from typing import Any, final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from steer.displayed import printable


def console(*, stderr: bool = False) -> Console:
    """A console on stdout, or on stderr."""
    return _PlainConsole(stderr=stderr, markup=False, emoji=False, highlight=False)


def shown(text: str, style: str = "") -> Text:
    """Words in a style, as they may be shown; cleaned here already, so that columns are as wide as what is printed."""
    return Text(printable(text), style)


@final
class _PlainConsole(Console):
    """Cleans whatever is rendered on it; what `rich` itself says to the terminal (colours, a bar that moves) stays."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of anything that can be rendered."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]  # passed on as it came
        """Words as they are."""
        return super().render_str(printable(text), **options)
