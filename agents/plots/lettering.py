"""The words in figures: any script that a font on this machine has, no mathematics, no control characters."""

import functools
import logging
import unicodedata
import warnings
from typing import Any

from steer.displayed import printable

_log = logging.getLogger(__name__)


def print_figure(canvas: Any, target: Any, **options: Any) -> None:
    """Write the figure of a canvas of `matplotlib`, whose words may be a stranger's.

    Where the usual font lacks characters, other fonts of this machine lend theirs; what none of them has is drawn as
    boxes, and told once in a warning of `logging`.

    Args:
        canvas: with the figure.
        target, options: of the canvas' `print_figure`.
    """
    figure = canvas.figure
    words = _words(figure)
    for text in words:
        text.set_text(_drawable(text.get_text()))
        text.set_parse_math(False)
    families, missing = _fallbacks(frozenset().union(*(text.get_text() for text in words)))
    if families:
        for text in words:
            text.set_fontfamily([*text.get_fontfamily(), *families])
    if missing:
        some = ", ".join(f"U+{ord(c):04X}" for c in sorted(missing)[:3])
        _log.warning(
            "no font on this machine has %d of a figure's characters (%s%s), which are drawn as boxes; install one "
            "that has them, such as one of Noto's",
            *(len(missing), some, ", ..." if len(missing) > 3 else ""),
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # told above, once
        canvas.print_figure(target, **options)


def _words(figure: Any) -> list[Any]:
    """The texts of a figure but for numbers at ticks, which may be powers of ten."""
    from matplotlib.axis import Tick
    from matplotlib.text import Text

    numbers = {id(text) for tick in figure.findobj(Tick) for text in tick.findobj(Text)}
    return [text for text in figure.findobj(Text) if id(text) not in numbers and text.get_text()]


def _drawable(text: str) -> str:
    """Without what has no shape of its own, such as the joiners of emoji."""
    return "".join(c for c in printable(text) if unicodedata.category(c) != "Cf" and not 0xFE00 <= ord(c) <= 0xFE0F)


@functools.lru_cache(maxsize=64)
def _fallbacks(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families of fonts that have what the usual one lacks, and the characters that none has."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    def known(file: str) -> set[int]:
        try:
            return set(FT2Font(file).get_charmap())
        except (OSError, RuntimeError):  # not a font that can be drawn with
            return set()

    usual = known(font_manager.findfont(font_manager.FontProperties()))
    missing = {c for c in characters if not c.isspace() and ord(c) not in usual}
    families: list[str] = []
    upright = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight == 400]
    for font in sorted(upright, key=lambda font: (font.name, font.fname)):
        if not missing:
            break
        if font.name in families or font.name.startswith("Last Resort"):  # whose shapes are boxes
            continue
        lent = {c for c in missing if ord(c) in known(font.fname)}
        if lent:
            families.append(font.name)
            missing -= lent
    return tuple(families), frozenset(missing)
