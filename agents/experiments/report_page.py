"""Making pages: templates that need nothing from elsewhere, and texts of a story that stay texts in Markdown."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page of one of the templates beside this module; what was written stays text in it."""
    import jinja2
    from markupsafe import Markup, escape

    def ticks(text: str) -> Markup:
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ticks"] = ticks
    return environment.get_template(template).render(values)


def points(lines: Iterable[str]) -> str:
    """Lines as a list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def escape_line(text: str) -> str:
    """Text of a story on one line, none of which is Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))


def listed(names: list[str]) -> str:
    """Names in a sentence; of many the first few."""
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
