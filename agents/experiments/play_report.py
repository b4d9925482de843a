"""The report of an experiment over scenarios, in the manner of `agents.experiments.report`."""

from collections.abc import Sequence
from typing import Any

from agents.experiments.bench import glossary
from agents.experiments.drawing import as_svgs
from agents.experiments.play_figures import BY_ROLE, COURSE, draw_plays
from agents.experiments.play_measures import PLAY_MEASURES
from agents.experiments.play_report_content import HEADLINE, PlayReport, play_findings
from agents.experiments.play_tables import (
    about,
    difference_tables,
    note,
    tables_by_group,
    tables_of_goals,
    verdict_table,
)
from agents.experiments.report_content import made_with
from agents.experiments.report_page import escape_line, points, render
from agents.experiments.statistics import Estimate
from agents.experiments.tables import markdown_table, plain_line

TEMPLATE = "play_report.html.j2"
CAPTIONS = {
    BY_ROLE: "Who gets their way: how often the goals of each character were told. Bars are 95 % intervals.",
    COURSE: "How near the goals came in the course of a run; means over all goals.",
}


def plays_html(report: PlayReport) -> str:
    """The report as one page: figures inside, no script, nothing from elsewhere."""
    results = report.results
    bars: Sequence[Estimate] | None = [row.measures[HEADLINE] for row in results.whole()] if results.judged else None
    values: dict[str, Any] = {
        "about": about(results),
        "bars": bars,
        "captions": CAPTIONS,
        "facts": made_with(report.manifest),
        "figures": as_svgs(draw_plays(results, report.courses)),
        "findings": play_findings(results),
        "glossary": glossary(results.rows[0].measures, PLAY_MEASURES),
        "goals": tables_of_goals(results),
        "note": note(results),
        "reference": results.reference,
        "samples": report.samples,
        "settings": report.settings,
        "tables": tables_by_group(results),
        "tests": difference_tables(results),
        "title": results.title or results.id,
        "totals": play_totals(report),
        "verdict": verdict_table(results),
    }
    return render(TEMPLATE, values)


def plays_markdown(report: PlayReport) -> str:
    """The report as Markdown, for a folder that holds the figures."""
    results = report.results
    parts = [f"# {plain_line(results.title or results.id)}", about(results), points(play_findings(results))]
    parts += [markdown_table(verdict_table(results)), note(results)]
    parts += [f"![{CAPTIONS[name]}]({name})" for name in draw_plays(results, report.courses)]
    parts += [markdown_table(sheet) for sheet in (*tables_of_goals(results), *difference_tables(results))]
    known = glossary(results.rows[0].measures, PLAY_MEASURES)
    parts += ["## Measures", points(f"`{name}`: {line}" for name, line in known)]
    parts += ["## Cost", play_totals(report), "## Runs"]
    for sample in report.samples:
        parts += [f"### {escape_line(sample.scenario)}", f"Opening: {escape_line(sample.opening)}"]
        parts += [points(escape_line(goal) for goal in sample.goals)]
        for text in sample.texts:
            parts += [f"**{escape_line(text.arm)}** ({text.facts})", points(map(escape_line, text.goals))]
            parts += [f"> *{escape_line(who)}* {escape_line(turn)}" for who, turn in text.turns]
    parts += ["## Versions", points(f"{name}: {value}" for name, value in made_with(report.manifest).items())]
    parts += ["## Settings", f"```yaml\n{report.settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def play_totals(report: PlayReport) -> str:
    """The cost of the whole experiment in one sentence."""
    return (
        f"In all {report.runs:,} runs, {report.tokens:,.0f} generated tokens and {report.seconds / 60:,.1f} minutes of "
        "writing."
    )
