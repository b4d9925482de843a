"""Tables of results: Markdown for files and pipes, rich for terminals, from the same cells."""

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from agents.experiments.kind import Captions
from agents.experiments.load import KINDS
from agents.experiments.measures import of_group
from agents.experiments.results import ALL, Results, Row
from agents.experiments.statistics import Comparison, Estimate
from steer.displayed import markdown_line, markdown_sentence, printable

DIEGETIC = " †"
Sheet = tuple[str, list[str], list[list[str]]]


def tables(results: Results) -> list[Sheet]:
    """Title, head and rows of each table: by group of measures, by group of items, by role, and the tests."""
    tests = [difference_table(results, name) for name in captions_of(results).tested]
    return [*measures_by_group(results).values(), *goal_tables(results), *(sheet for sheet in tests if sheet)]


def captions_of(results: Results) -> Captions:
    """The words of the kind that the results are of."""
    return KINDS[results.kind].captions


def measures_by_group(results: Results) -> dict[str, Sheet]:
    """A table for each group of measures of which any was taken."""
    measures, titles = KINDS[results.kind].measures, captions_of(results).titles
    groups = {group: of_group(results.measures, measures, group) for group in titles}
    return {group: arm_table(results, titles[group], names) for group, names in groups.items() if names}


def verdict_table(results: Results) -> Sheet:
    """The table that answers the question, with the few measures of the kind's verdict that were taken."""
    return arm_table(results, "Verdict", _taken(results, captions_of(results).verdict))


def arm_table(results: Results, title: str, names: Sequence[str]) -> Sheet:
    """A table of measures with their intervals: a row for each arm that was written for all items."""
    rows = [[show_name(results, row.arm), *_shown(results, row, names)] for row in results.whole()]
    return title, ["arm", *map(heading, names)], rows


def goal_tables(results: Results) -> list[Sheet]:
    """What became of the goals by their relation, where there are several, and by role in each of them."""
    words, groups = captions_of(results), results.groups()
    names = _taken(results, words.by_group)
    rows = [
        [f"{group}: {arm.name}", *_shown(results, row, names)]
        for group in groups
        for arm in results.arms
        if (row := results.row(arm.name, group)) is not None
    ]
    found = [("By relation of the goals", ["relation: arm", *map(heading, names)], rows)] if rows else []
    return [*found, *(_role_table(results, group) for group in groups or [ALL] if results.roles(group))]


def difference_table(results: Results, measure: str) -> Sheet | None:
    """A table of one measure's paired tests against the reference; None where nothing was tested."""
    by, rows = captions_of(results).paired_by, []
    for test in results.tests:
        if test.measure == measure:
            c = test.comparison
            change, count = show(results, c.difference, measure, signed=True), [str(c.difference.pairs)] if by else []
            rows.append([test.first, change, *count, show_p(c.p), show_p(test.p_holm), show_effect(c), c.test])
    title = f"{heading(measure)}: each arm against {results.reference}, paired" + (f" by {by}" if by else "")
    head = ["arm", "difference", *([f"{by}s"] if by else []), "p", "p (Holm)", "effect", "test"]
    return (title, head, rows) if rows else None


def heading(name: str) -> str:
    """Name of a measure at the head of a table."""
    return name.replace("_", " ")


def markdown(results: Results) -> str:
    """All tables in Markdown, under the title of the experiment."""
    parts = [f"# {markdown_line(results.name)}", markdown_sentence(describe(results))]
    parts += [*map(markdown_table, tables(results)), *map(markdown_sentence, notes(results))]
    return "\n\n".join(parts) + "\n"


def markdown_table(sheet: Sheet) -> str:
    """A table in Markdown, under its title."""
    title, head, rows = sheet
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return f"## {markdown_line(title)}\n\n" + "\n".join(f"| {' | '.join(map(markdown_line, line))} |" for line in lines)


def rich_tables(results: Results) -> list[Table]:
    """The same tables for a terminal; intervals are left to the Markdown."""
    return [rich_table(sheet) for sheet in tables(results)]


def rich_table(sheet: Sheet) -> Table:
    """A table for a terminal; intervals are left out."""
    title, head, rows = sheet
    table = Table(title=Text(printable(title)), title_justify="left")
    for name in head:
        table.add_column(Text(printable(name)))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, *values in rows:
        table.add_row(Text(printable(name)), *(Text(value.split(" (")[0]) for value in values))
    return table


def describe(results: Results) -> str:
    """What was compared, in one sentence."""
    seeds = "1 seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"
    numbers = {"items": len(results.items), "seeds": seeds, "model": results.model}
    return captions_of(results).about.format(**numbers, **results.facts)


def notes(results: Results) -> list[str]:
    """What a reader has to know besides."""
    found = ["Measures that need a judge are left out: it is not installed (`pip install 'steer[judge]'`)."]
    if results.judged:
        found = [captions_of(results).judged.format(**results.facts)]
    if any(arm.diegetic for arm in results.arms):
        found.append("† The goal stands in the visible text, where the characters can hear it: a control, no method.")
    return found


def show(results: Results, value: Estimate, name: str, *, signed: bool = False) -> str:
    """A mean with its interval, as a share or with as many digits behind the point as the measure of that name says.

    What is of a single pair or scenario has no interval.
    """
    measure = KINDS[results.kind].measures[name]
    if not value.pairs:
        return "-"
    sign = "+" if signed else ""
    form = f"{{:{sign}.0f}}" if measure.percent else f"{{:{sign}.{measure.digits}f}}"
    mean, low, high = (form.format(100 * v if measure.percent else v) for v in (value.mean, value.low, value.high))
    return f"{mean}{' %' if measure.percent else ''}" + (f" ({low} to {high})" if value.pairs > 1 else "")


def show_effect(comparison: Comparison) -> str:
    """The size of a difference by its name; of numbers also Cliff's delta."""
    if math.isnan(comparison.effect):
        return "-"
    shown = f"{comparison.effect_name} = {comparison.effect:+.2f}"
    delta = comparison.delta
    return shown if comparison.effect_name == "h" or math.isnan(delta) else f"{shown}, δ = {delta:+.2f}"


def show_p(p: float) -> str:
    """A p value with two digits, or that it is tiny."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def show_name(results: Results, arm: str) -> str:
    """Name of an arm, marked where its goal stood in the visible text."""
    return arm + (DIEGETIC if results.arm(arm).diegetic else "")


def _role_table(results: Results, group: str) -> Sheet:
    """What became of the goals of the first character, the second, ...: a line per arm and role."""
    names = _taken(results, captions_of(results).by_role)
    lines = [
        [f"{role}: {arm.name}", str(row.measures[names[0]].pairs), *_shown(results, row, names)]
        for role in results.roles(group)
        for arm in results.arms
        if (row := results.row(arm.name, group, role)) is not None
    ]
    where = "all scenarios" if group == ALL else group
    return f"By role, {where}", ["role: arm", "scenarios", *map(heading, names)], lines


def _taken(results: Results, names: Sequence[str]) -> list[str]:
    """Those of `names` that were measured."""
    return [name for name in names if name in results.measures]


def _shown(results: Results, row: Row, names: Sequence[str]) -> list[str]:
    return [show(results, row.measures[name], name) for name in names]
