"""The report of a finished run: one page that needs nothing beside it, and the same as Markdown.

Both are made of the files that the run left; nothing is computed anew but the figures.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import RunDamaged, RunNotFound
from agents.experiments.drawing import as_pngs, as_svgs
from agents.experiments.figures import caption, drawings
from agents.experiments.findings import findings
from agents.experiments.folder import EXPERIMENT, MANIFEST, RESULTS, SAMPLES, make_folder, write_files
from agents.experiments.kind import Example
from agents.experiments.load import KINDS
from agents.experiments.manifest import Manifest, read_manifest
from agents.experiments.measures import glossary
from agents.experiments.results import Results
from agents.experiments.seals import REPORTED, check_report
from agents.experiments.tables import (
    Sheet,
    captions_of,
    describe,
    difference_table,
    goal_tables,
    markdown_table,
    measures_by_group,
    notes,
    verdict_table,
)
from steer.displayed import markdown_code, markdown_item, markdown_line, markdown_sentence, printable

HTML, MARKDOWN = "report.html", "report.md"
TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Report:
    """What stands in a report.

    Attributes:
        results, manifest: of the run.
        settings: the experiment's file.
        examples: the first items, and what each arm wrote for them with the first seed.
        totals: the cost of the whole run in one sentence.
    """

    results: Results
    manifest: Manifest
    settings: str
    examples: tuple[Example, ...]
    totals: str


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
    files = {HTML: as_html(report), MARKDOWN: as_markdown(report), **as_pngs(drawings(report.results))}
    make_folder(out)
    return write_files(out, files)


def read_report(run: Path) -> Report:
    """Gather what stands in the report of a finished run.

    Raises:
        RunNotFound, RunDamaged: see `write_report`.
    """
    try:
        manifest, settings = read_manifest(run), (run / EXPERIMENT).read_text(encoding="utf-8")
    except OSError as error:
        missing = Path(error.filename or MANIFEST).name
        raise RunNotFound(
            f"{run} holds no run of an experiment ({missing}: {error.strerror}); expected the --out of steer experiment"
        ) from error
    results, path = Results.load(run / RESULTS), run / SAMPLES
    check_report(run, REPORTED)
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        examples = KINDS[results.kind].examples(rows, results.seeds[0])
        return Report(results, manifest, settings, examples, _totals(rows, captions_of(results).unit))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamaged(
            f"{path} holds no samples of this run ({error}); give the `steer experiment` command of the run again, "
            "which makes it anew"
        ) from error


def as_html(report: Report) -> str:
    """The report as one page: figures inside, no script, nothing from elsewhere."""
    results, words = report.results, captions_of(report.results)
    figures, whole = drawings(results), results.whole()
    values = {
        "about": describe(results),
        "bars": [row.measures[words.headline] for row in whole] if results.judged else None,
        "captions": {name: caption(results, name) for name in figures},
        "examples": report.examples,
        "facts": made_with(report.manifest),
        "figures": as_svgs(figures),
        "findings": findings(results),
        "glossary": glossary(results.measures, KINDS[results.kind].measures),
        "goals": goal_tables(results),
        "notes": notes(results),
        "reference": results.reference,
        "settings": report.settings,
        "tables": measures_by_group(results),
        "tests": _tests(results),
        "title": results.name,
        "totals": report.totals,
        "verdict": verdict_table(results),
        "words": words,
    }
    return _render(TEMPLATE, values)


def as_markdown(report: Report) -> str:
    """The report as Markdown, for a folder that holds the figures."""
    results, words = report.results, captions_of(report.results)
    parts = [f"# {markdown_line(results.name)}", markdown_sentence(describe(results))]
    parts += [_points(map(markdown_sentence, findings(results))), markdown_table(verdict_table(results))]
    parts += map(markdown_sentence, notes(results))
    parts += [f"![{caption(results, name)}]({name})" for name in drawings(results)]
    parts += map(markdown_table, (*goal_tables(results), *_tests(results, words.verdict)))
    known = glossary(results.measures, KINDS[results.kind].measures)
    parts += ["## Measures", _points(f"`{name}`: {line}" for name, line in known)]
    parts += ["## Cost", report.totals, "## Samples"]
    for example in report.examples:
        parts += [f"### {markdown_line(example.name)}"]
        parts += [f"{what}: {markdown_line(text)}" for what, text in example.given]
        parts += [_points(map(markdown_item, example.goals))] if example.goals else []
        for text in example.texts:
            parts += [f"**{markdown_line(text.arm)}** ({text.facts})"]
            parts += [_points(map(markdown_item, text.goals))] if text.goals else []
            parts += [f"> {f'*{markdown_line(who)}* ' if who else ''}{markdown_item(said)}" for who, said in text.parts]
    parts += [
        "## Versions",
        _points(f"{markdown_line(name)}: {markdown_line(value)}" for name, value in made_with(report.manifest).items()),
    ]
    parts += ["## Settings", markdown_code(report.settings, "yaml")]
    return "\n\n".join(parts) + "\n"


def made_with(manifest: Manifest) -> dict[str, str]:
    """What the run was made with, for whoever repeats it."""
    return {
        "experiment": f"{manifest.experiment} ({manifest.experiment_sha256[:12]})",
        "model": str(manifest.model.get("name")),
        "encoder": str(manifest.model.get("encoder_id")),
        "type": str(manifest.model.get("dtype")),
        "revision": manifest.revision or "unknown",
        "started": manifest.started,
        **manifest.versions,
        **manifest.platform,
    }


def _tests(results: Results, names: Sequence[str] | None = None) -> list[Sheet]:
    """The paired tests of measures, by default of all but costs and roles."""
    measures = KINDS[results.kind].measures
    chosen = [name for name in names or results.measures if measures[name].group in ("goal", "text")]
    return [sheet for name in chosen if (sheet := difference_table(results, name))]


def _totals(rows: Sequence[Mapping[str, Any]], unit: str) -> str:
    """The cost of a whole run in one sentence."""
    tokens, seconds = (sum(row["measures"][name] or 0 for row in rows) for name in ("tokens", "seconds"))
    return f"In all {len(rows):,} {unit}, {tokens:,.0f} generated tokens and {seconds / 60:,.1f} minutes of writing."


def _render(template: str, values: Mapping[str, Any]) -> str:
    """A page of one of the templates; what was written stays text in it."""
    import jinja2
    from markupsafe import Markup, escape

    def ticks(text: str) -> Markup:
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ticks"] = ticks
    return printable(environment.get_template(template).render(values))


def _points(lines: Iterable[str]) -> str:
    """Lines as a list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)
