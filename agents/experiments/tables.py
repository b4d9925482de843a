"""Tables of results: Markdown for files and pipes, rich for terminals, from the same cells."""

import math

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agents.experiments.measures import MEASURES
from agents.experiments.results import HEADLINE, ArmResult, Results, measured_names
from agents.experiments.statistics import Estimate

TITLES = {"goal": "How often and how near the goal came", "text": "The text", "cost": "The cost of one text"}
DIEGETIC = " †"


def tables(results: Results) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, head and rows of each table: one per group of measures, then the tests of the measure of success."""
    found = []
    names = list(results.arms[0].measures)
    for group, title in TITLES.items():
        chosen = measured_names(names, group)
        if chosen:
            rows = [[_name(arm), *(show(arm.measures[name], name) for name in chosen)] for arm in results.arms]
            found.append((title, ["arm", *(name.replace("_", " ") for name in chosen)], rows))
    if tests := [test for test in results.tests if test.measure == HEADLINE]:
        rows = []
        for test in tests:
            c = test.comparison
            effect = "-" if math.isnan(c.effect) else f"{c.effect_name} = {c.effect:+.2f}"
            change = show(c.difference, HEADLINE, signed=True)
            rows.append([test.first, change, show_p(c.p), show_p(test.p_holm), effect, c.test])
        title = f"{HEADLINE}: each arm against {results.reference}, paired"
        found.append((title, ["arm", "difference", "p", "p (Holm)", "effect", "test"], rows))
    return found


def markdown(results: Results) -> str:
    """All tables in Markdown, under the title of the experiment."""
    parts = [f"# {_plain(results.title or results.id)}", describe(results)]
    for title, head, rows in tables(results):
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines))
    return "\n\n".join([*parts, *notes(results)]) + "\n"


def rich_tables(results: Results) -> list[Table]:
    """The same tables for a terminal; intervals are left to the Markdown."""
    found = []
    for title, head, rows in tables(results):
        table = Table(*map(escape, head), title=Text(title), title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, *values in rows:
            table.add_row(Text(name), *(Text(value.split(" (")[0]) for value in values))
        found.append(table)
    return found


def describe(results: Results) -> str:
    """What was compared, in one sentence."""
    seeds = "1 seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"
    return (
        f"{results.pairs} pairs of context and terminal, {seeds}, {results.spans} spans per text, model "
        f"{_plain(results.model)}. In brackets: 95 % bootstrap intervals over pairs."
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
    if not value.pairs:
        return "-"
    measure = MEASURES[name]
    sign = "+" if signed else ""
    form = f"{{:{sign}.0f}}" if measure.percent else f"{{:{sign}.{measure.digits}f}}"
    mean, low, high = (form.format(100 * v if measure.percent else v) for v in (value.mean, value.low, value.high))
    return f"{mean}{' %' if measure.percent else ''} ({low} to {high})"


def show_p(p: float) -> str:
    """A p value with two digits, or that it is tiny."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def _name(arm: ArmResult) -> str:
    return arm.name + (DIEGETIC if arm.diegetic else "")


def _plain(text: str) -> str:
    """Text inside a Markdown table: a bar would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")
