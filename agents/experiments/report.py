"""The report of a finished run: one page that needs nothing beside it, and the same as Markdown.

Both are made of the files that the run left; nothing is computed anew but the figures.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.errors import RunDamaged, RunNotFound, RunWriteError
from agents.experiments.figures import BY_BUDGET, FRONTIER, inline_figures, save_figures
from agents.experiments.manifest import EXPERIMENT, MANIFEST, ExperimentManifest, read_run
from agents.experiments.measures import MEASURES
from agents.experiments.results import HEADLINE, RESULTS, SAMPLES, Results
from agents.experiments.tables import (
    VERDICT,
    describe,
    difference_table,
    markdown_table,
    measures_by_group,
    notes,
    plain_line,
    show,
    verdict_table,
)
from agents.log import write_atomic
from steer.pairs import Pair

HTML, MARKDOWN = "report.html", "report.md"
TEMPLATE = "report.html.j2"
PAIRS_SHOWN = 10
SIGNIFICANT = 0.05
COST = frozenset(name for name, measure in MEASURES.items() if measure.group == "cost")
CAPTIONS = {
    FRONTIER: "Success against fluency: up is more endings that arrive, left is more fluent text.",
    BY_BUDGET: "Success by budget: what more generated tokens buy. Bands are arms without a budget.",
}


@dataclass(frozen=True)
class ArmText:
    """What one arm wrote for a pair.

    Attributes:
        arm: name of the variant.
        text: the written part.
        facts: its numbers, in a few words.
    """

    arm: str
    text: str
    facts: str


@dataclass(frozen=True)
class Report:
    """What stands in a report.

    Attributes:
        results, manifest: of the run.
        settings: the experiment's file.
        samples: the first pairs, and what each arm wrote for them with the first seed.
    """

    results: Results
    manifest: ExperimentManifest
    settings: str
    samples: tuple[tuple[Pair, tuple[ArmText, ...]], ...]


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


def read_report(run: Path) -> Report:
    """Gather what stands in the report of a finished run.

    Raises:
        RunNotFound, RunDamaged: see `write_report`.
    """
    try:
        manifest, pairs = read_run(run)
        settings = (run / EXPERIMENT).read_text(encoding="utf-8")
    except OSError as error:
        missing = Path(error.filename or MANIFEST).name
        raise RunNotFound(
            f"{run} holds no run of an experiment ({missing}: {error.strerror}); expected the --out of steer experiment"
        ) from error
    results = Results.load(run / RESULTS)
    return Report(results, manifest, settings, _read_samples(run / SAMPLES, results, pairs[:PAIRS_SHOWN]))


def findings(results: Results) -> list[str]:
    """What the results say, in sentences; controls that tell the goal are left out."""
    if not results.judged:
        return ["Endings were not judged: the judge was not installed when the run was measured."]
    arms = [arm for arm in results.arms if not arm.diegetic]
    reference = next(arm for arm in results.arms if arm.name == results.reference)
    best = max(arms, key=lambda arm: arm.measures[HEADLINE].mean)
    said = [
        f"The right terminal was nearest most often with {best.name}: {show(best.measures[HEADLINE], HEADLINE)}; with "
        f"the reference {reference.name}: {show(reference.measures[HEADLINE], HEADLINE)}."
    ]
    found: dict[str, list[str]] = {"more": [], "less": []}
    others = [(arm.name, test) for arm in arms if (test := results.test(HEADLINE, arm.name)) is not None]
    for name, test in others:
        if test.p_holm < SIGNIFICANT:
            found["more" if test.comparison.difference.mean > 0 else "less"].append(name)
    if others:
        rest = len(others) - sum(map(len, found.values()))
        parts = [f"{word} often with {_listed(names)}" for word, names in found.items() if names]
        told = f"Beyond chance (p < {SIGNIFICANT}, adjusted for {len(results.arms) - 1} tests) it was nearest "
        said.append(told + "; ".join([*parts, f"no clear difference in {rest} of {len(others)} arms"]) + ".")
    return said


def glossary(results: Results) -> list[tuple[str, str]]:
    """Each measure that was taken, with one line on what it is."""
    return [
        (name.replace("_", " "), (MEASURES[name].take.__doc__ or "").strip().splitlines()[0])
        for name in results.arms[0].measures
        if name in MEASURES
    ]


def totals(results: Results) -> str:
    """The cost of the whole run in one sentence."""
    texts = sum(arm.samples for arm in results.arms)
    tokens, seconds = (
        sum(arm.samples * arm.measures[name].mean for arm in results.arms) for name in ("tokens", "seconds")
    )
    return f"In all {texts:,} texts, {tokens:,.0f} generated tokens and {seconds / 60:,.1f} minutes of writing."


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
        "facts": _facts(report.manifest),
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
    parts += ["## Versions", _points(f"{name}: {value}" for name, value in _facts(report.manifest).items())]
    parts += ["## Settings", f"```yaml\n{report.settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _read_samples(path: Path, results: Results, pairs: Sequence[Pair]) -> tuple[tuple[Pair, tuple[ArmText, ...]], ...]:
    """What the arms wrote for these pairs with the first seed; pairs that the run did not get to are left out."""
    found: dict[str, dict[str, ArmText]] = {pair.id: {} for pair in pairs}
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                row = json.loads(line)
                if row["seed"] == results.seeds[0] and row["pair"] in found:
                    found[row["pair"]][row["arm"]] = ArmText(row["arm"], row["text"], _facts_of(row["measures"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamaged(
            f"{path} holds no samples of this run ({error}); give the `steer experiment` command of the run again, "
            "which makes it anew"
        ) from error
    names = [arm.name for arm in results.arms]
    return tuple(
        (pair, tuple(found[pair.id][name] for name in names if name in found[pair.id]))
        for pair in pairs
        if found[pair.id]
    )


def _facts_of(measures: Mapping[str, float | None]) -> str:
    """The numbers of one text, in a few words."""
    forms = {"rank": "rank {:.0f}", "base_nll": "NLL {:.2f}", "tokens": "{:,.0f} tokens"}
    return ", ".join(form.format(value) for name, form in forms.items() if (value := measures.get(name)) is not None)


def _facts(manifest: ExperimentManifest) -> dict[str, str]:
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


def _points(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _escape(text: str) -> str:
    """Text of a story on one line, none of which is Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many the first few."""
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
