"""The report of a finished run: one page that needs nothing beside it, and the same as Markdown.

Both are made of the files that the run left; nothing is computed anew but the figures.
"""

from pathlib import Path

from agents.experiments.bench import glossary
from agents.experiments.drawing import as_pngs, as_svgs
from agents.experiments.figures import BY_BUDGET, FRONTIER, draw_results
from agents.experiments.folder import make_folder, write_files
from agents.experiments.measures import MEASURES
from agents.experiments.play_figures import draw_plays
from agents.experiments.play_manifest import PLAYS
from agents.experiments.play_report import plays_html, plays_markdown
from agents.experiments.play_report_content import read_play_report
from agents.experiments.report_content import Report, findings, made_with, read_report, totals
from agents.experiments.report_page import escape_line, points, render
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

HTML, MARKDOWN = "report.html", "report.md"
TEMPLATE = "report.html.j2"
COST = frozenset(name for name, measure in MEASURES.items() if measure.group == "cost")
INTERVALS = "Bars are 95 % intervals."
CAPTIONS = {
    FRONTIER: "Success against fluency: up is more endings that arrive, left is more fluent text. " + INTERVALS,
    BY_BUDGET: "Success by budget: what more generated tokens buy. Bands are arms without a budget. " + INTERVALS,
}


def write_report(run: Path, out: Path | None = None) -> list[Path]:
    """Write `report.html`, `report.md` and the figures of a finished run, of pairs or of scenarios.

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
    if (run / PLAYS).exists():
        plays = read_play_report(run)
        pages, drawings = (plays_html(plays), plays_markdown(plays)), draw_plays(plays.results, plays.courses)
    else:
        report = read_report(run)
        pages, drawings = (as_html(report), as_markdown(report)), draw_results(report.results)
    out = out or run
    images = as_pngs(drawings)
    make_folder(out)
    return write_files(out, {HTML: pages[0], MARKDOWN: pages[1], **images})


def as_html(report: Report) -> str:
    """The report as one page: figures inside, no script, nothing from elsewhere."""
    results = report.results
    names = [name for name in results.arms[0].measures if name not in COST]
    values = {
        "about": describe(results),
        "bars": [arm.measures[HEADLINE] for arm in results.arms] if results.judged else None,
        "captions": CAPTIONS,
        "facts": made_with(report.manifest),
        "figures": as_svgs(draw_results(results)),
        "findings": findings(results),
        "glossary": glossary(results.arms[0].measures, MEASURES),
        "notes": notes(results),
        "reference": results.reference,
        "samples": report.samples,
        "settings": report.settings,
        "tables": measures_by_group(results),
        "tests": [sheet for name in names if (sheet := difference_table(results, name))],
        "title": results.title or results.id,
        "totals": totals(results),
        "verdict": verdict_table(results),
    }
    return render(TEMPLATE, values)


def as_markdown(report: Report) -> str:
    """The report as Markdown, for a folder that holds the figures."""
    results = report.results
    parts = [f"# {plain_line(results.title or results.id)}", describe(results), points(findings(results))]
    parts += [markdown_table(verdict_table(results)), *notes(results)]
    parts += [f"![{CAPTIONS[name]}]({name})" for name in draw_results(results)]
    parts += [
        markdown_table(sheet) for name in VERDICT if name not in COST and (sheet := difference_table(results, name))
    ]
    parts += ["## Measures", points(f"`{name}`: {line}" for name, line in glossary(results.arms[0].measures, MEASURES))]
    parts += ["## Cost", totals(results), "## Samples"]
    for pair, texts in report.samples:
        parts += [
            f"### {escape_line(pair.id)}",
            f"Context: {escape_line(pair.context)}",
            f"Goal: {escape_line(pair.terminal)}",
        ]
        parts += [f"**{escape_line(text.arm)}** ({text.facts}): {escape_line(text.text)}" for text in texts]
    parts += ["## Versions", points(f"{name}: {value}" for name, value in made_with(report.manifest).items())]
    parts += ["## Settings", f"```yaml\n{report.settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"
