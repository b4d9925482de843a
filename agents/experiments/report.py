"""The report of a finished run: one page that needs nothing beside it, and the same as Markdown.

Both are made of the files that the run left; nothing is computed anew but the figures.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from agents.errors import RunWriteError
from agents.experiments.figures import BY_BUDGET, FRONTIER, inline_figures, save_figures
from agents.experiments.measures import MEASURES
from agents.experiments.report_content import Report, findings, glossary, made_with, read_report, totals
from agents.experiments.results import HEADLINE
from agents.experiments.tables import (
    VERDICT,
    describe,
    difference_table,
    markdown_table,
    measures_by_group,
    notes,
    plain_line,
    verdict_table,
)
from agents.log import write_atomic

HTML, MARKDOWN = "report.html", "report.md"
TEMPLATE = "report.html.j2"
COST = frozenset(name for name, measure in MEASURES.items() if measure.group == "cost")
CAPTIONS = {
    FRONTIER: "Success against fluency: up is more endings that arrive, left is more fluent text.",
    BY_BUDGET: "Success by budget: what more generated tokens buy. Bands are arms without a budget.",
}


def write_report(run: Path, out: Path | None = None) -> list[Path]:
    """Write `report.html`, `report.md` and the figures of a finished run.

    Args:
        run: folder of an experiment that has come to its end.
        out: folder for the files, made if need be; by default the run's.

    Returns:
        The files, the page first.

    Raises:
        RunNotFound: the folder holds no run of an experiment.
        RunDamaged: the run is not finished, or its files were changed.
        RunWriteError: the file system refused.
    """
    report, out = read_report(run), out or run
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunWriteError(f"cannot write {out}: {error.strerror}") from error
    write_atomic(out / HTML, as_html(report))
    write_atomic(out / MARKDOWN, as_markdown(report))
    return [out / HTML, out / MARKDOWN, *save_figures(report.results, out)]


def as_html(report: Report) -> str:
    """The report as one page: figures inside, no script, nothing from elsewhere."""
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
    results = report.results
    names = [name for name in results.arms[0].measures if name not in COST]
    values = {
        "about": describe(results),
        "captions": CAPTIONS,
        "facts": made_with(report.manifest),
        "figures": inline_figures(results),
        "findings": findings(results),
        "glossary": glossary(results),
        "headline": HEADLINE,
        "manifest": report.manifest,
        "notes": notes(results),
        "results": results,
        "samples": report.samples,
        "settings": report.settings,
        "tables": measures_by_group(results),
        "tests": [sheet for name in names if (sheet := difference_table(results, name))],
        "totals": totals(results),
        "verdict": verdict_table(results),
    }
    return environment.get_template(TEMPLATE).render(values)


def as_markdown(report: Report) -> str:
    """The report as Markdown, for a folder that holds the figures."""
    results = report.results
    parts = [f"# {plain_line(results.title or results.id)}", describe(results), _points(findings(results))]
    parts += [markdown_table(verdict_table(results)), *notes(results)]
    parts += [f"![{CAPTIONS[name]}]({name})" for name in inline_figures(results)]
    parts += [
        markdown_table(sheet) for name in VERDICT if name not in COST and (sheet := difference_table(results, name))
    ]
    parts += ["## Measures", _points(f"`{name}`: {line}" for name, line in glossary(results))]
    parts += ["## Cost", totals(results), "## Samples"]
    for pair, texts in report.samples:
        parts += [f"### {_escape(pair.id)}", f"Context: {_escape(pair.context)}", f"Goal: {_escape(pair.terminal)}"]
        parts += [f"**{_escape(text.arm)}** ({text.facts}): {_escape(text.text)}" for text in texts]
    parts += ["## Versions", _points(f"{name}: {value}" for name, value in made_with(report.manifest).items())]
    parts += ["## Settings", f"```yaml\n{report.settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _points(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _escape(text: str) -> str:
    """Text of a story on one line, none of which is Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
