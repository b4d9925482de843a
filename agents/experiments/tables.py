"""Tables of results: Markdown for files and pipes, rich for terminals, from the same cells."""

import math
from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agents.experiments.bench import Measure, of_group
from agents.experiments.measures import MEASURES
from agents.experiments.results import HEADLINE, ArmResult, Results
from agents.experiments.run_results import RunResults
from agents.experiments.statistics import Comparison, Estimate

TITLES = {"goal": "How often and how near the goal came", "text": "The text", "cost": "The cost of one text"}
DIEGETIC = " †"
# What a verdict needs: whether the goal came, whether the text is still one, and what it cost.
VERDICT = ("nearest", "nearest_five", "overlap", "base_nll", "distinct_3", "repetition", "tokens", "seconds")
Sheet = tuple[str, list[str], list[list[str]]]


def tables(results: Results) -> list[Sheet]:
    """Title, head and rows of each table: one per group of measures, then the tests of the measure of success."""
    return [*measures_by_group(results).values(), *([sheet] if (sheet := difference_table(results, HEADLINE)) else [])]


def measures_by_group(results: Results) -> dict[str, Sheet]:
    """A table for each group of measures of which any was taken."""
    names = list(results.arms[0].measures)
    groups = {group: of_group(names, MEASURES, group) for group in TITLES}
    return {group: measure_table(results, TITLES[group], chosen) for group, chosen in groups.items() if chosen}


def verdict_table(results: Results) -> Sheet:
    """The table that answers the question, with the few measures of `VERDICT` that were taken."""
    return measure_table(results, "Verdict", [name for name in VERDICT if name in results.arms[0].measures])


def measure_table(results: Results, title: str, names: Sequence[str]) -> Sheet:
    """A table of measures with their intervals, a row per arm."""
    rows = [[show_name(arm), *(show(arm.measures[name], name) for name in names)] for arm in results.arms]
    return title, ["arm", *map(heading, names)], rows


def difference_table(results: Results, measure: str) -> Sheet | None:
    """A table of one measure's paired tests against the reference; None where nothing was tested."""
    return paired_tests(results, measure, show)


def paired_tests(results: RunResults, measure: str, show: Callable[..., str], *, by: str = "") -> Sheet | None:
    """The same of either kind of results.

    Args:
        results: of a run.
        measure: its name.
        show: see there; of the kind.
        by: what a pair is, where a column is to say how many there were.
    """
    rows = []
    for test in results.tests:
        if test.measure == measure:
            c = test.comparison
            change, count = show(c.difference, measure, signed=True), [str(c.difference.pairs)] if by else []
            rows.append([test.first, change, *count, show_p(c.p), show_p(test.p_holm), show_effect(c), c.test])
    title = f"{heading(measure)}: each arm against {results.reference}, paired" + (f" by {by}" if by else "")
    head = ["arm", "difference", *([f"{by}s"] if by else []), "p", "p (Holm)", "effect", "test"]
    return (title, head, rows) if rows else None


def heading(name: str) -> str:
    """Name of a measure at the head of a table."""
    return name.replace("_", " ")


def markdown(results: Results) -> str:
    """All tables in Markdown, under the title of the experiment."""
    parts = [f"# {plain_line(results.title or results.id)}", describe(results), *map(markdown_table, tables(results))]
    return "\n\n".join([*parts, *notes(results)]) + "\n"


def markdown_table(sheet: Sheet) -> str:
    """A table in Markdown, under its title."""
    title, head, rows = sheet
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(map(plain_line, line))} |" for line in lines)


def rich_tables(results: Results) -> list[Table]:
    """The same tables for a terminal; intervals are left to the Markdown."""
    return [rich_table(sheet) for sheet in tables(results)]


def rich_table(sheet: Sheet) -> Table:
    """A table for a terminal; intervals are left out."""
    title, head, rows = sheet
    table = Table(*map(escape, head), title=Text(title), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, *values in rows:
        table.add_row(Text(name), *(Text(value.split(" (")[0]) for value in values))
    return table


def describe(results: Results) -> str:
    """What was compared, in one sentence."""
    seeds = "1 seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"
    return (
        f"{results.pairs} pairs of context and terminal, {seeds}, {results.spans} spans per text, model "
        f"{plain_line(results.model)}. In brackets: 95 % bootstrap intervals over pairs."
    )


def notes(results: Results) -> list[str]:
    """What a reader has to know besides."""
    found = []
    if results.judged:
        found.append(
            f"`nearest`: share of endings whose nearest terminal among {results.group} is the right one, by a sentence "
            "embedder that no arm and no reward uses; `nearest five`: among the five nearest."
        )
    else:
        found.append("Measures that need a judge are left out: it is not installed (`pip install 'steer[judge]'`).")
    if any(arm.diegetic for arm in results.arms):
        found.append("† The goal stands in the visible text, where the characters can hear it: a control, no method.")
    return found


def show(value: Estimate, name: str, *, signed: bool = False) -> str:
    """A mean with its interval, in the measure's own format."""
    return show_value(value, MEASURES[name], signed=signed)


def show_value(value: Estimate, measure: Measure, *, signed: bool = False) -> str:
    """A mean with its interval, as a share or with as many digits behind the point as the measure says."""
    if not value.pairs:
        return "-"
    sign = "+" if signed else ""
    form = f"{{:{sign}.0f}}" if measure.percent else f"{{:{sign}.{measure.digits}f}}"
    mean, low, high = (form.format(100 * v if measure.percent else v) for v in (value.mean, value.low, value.high))
    return f"{mean}{' %' if measure.percent else ''} ({low} to {high})"


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


def show_name(arm: ArmResult) -> str:
    """Name of an arm, marked where its goal stood in the visible text."""
    return arm.name + (DIEGETIC if arm.diegetic else "")


def plain_line(text: str) -> str:
    """Text inside a Markdown table: a bar would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")
