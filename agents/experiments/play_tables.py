"""Tables of an experiment over scenarios, in Markdown: by arm, by relation of the goals, by role."""

from collections.abc import Sequence

from agents.experiments.bench import of_group
from agents.experiments.play_measures import PLAY_MEASURES
from agents.experiments.play_results import ALL, PlayResults, PlayRow
from agents.experiments.play_spec import ROLES
from agents.experiments.statistics import Estimate
from agents.experiments.tables import Sheet, heading, markdown_table, paired_tests, plain_line, show_value

HEADLINES = ("told", "reached", "base_nll")  # what is tested, and shown by relation
BY_RELATION = ("told", "all_told", "reached", "leakage", "told_by_others", "base_nll")
BY_ROLE = ("told", "ahead", "reached")
TITLES = {"goal": "What became of the goals", "text": "The text", "cost": "The cost of one run"}


VERDICT = ("told", "all_told", "reached", "nearest", "base_nll", "distinct_3", "repetition", "tokens", "seconds")


def play_tables(results: PlayResults) -> list[Sheet]:
    """Title, head and rows of each table."""
    return [*tables_by_group(results).values(), *tables_of_goals(results), *difference_tables(results)]


def arm_table(results: PlayResults, title: str, names: Sequence[str]) -> Sheet:
    """A table of measures with their intervals: a row for each arm that is played in all scenarios."""
    rows = [_row(row, [row.arm], names) for row in results.whole()]
    return title, ["arm", *map(heading, names)], rows


def verdict_table(results: PlayResults) -> Sheet:
    """The table that answers the question, with the few measures of `VERDICT` that were taken."""
    return arm_table(results, "Verdict", [name for name in VERDICT if name in results.rows[0].measures])


def tables_by_group(results: PlayResults) -> dict[str, Sheet]:
    """A table for each group of measures; `ahead` says something of roles alone."""
    taken = [name for name in results.rows[0].measures if name != "ahead"]
    return {group: arm_table(results, title, of_group(taken, PLAY_MEASURES, group)) for group, title in TITLES.items()}


def tables_of_goals(results: PlayResults) -> list[Sheet]:
    """What became of the goals by their relation, where there are several, and by role in each of them."""
    taken, arms = list(results.rows[0].measures), results.arms()
    names = [name for name in BY_RELATION if name in taken]
    rows = [
        _row(row, [f"{relation}: {row.arm}"], names)
        for relation in results.relations()
        for arm in arms
        if (row := results.row(arm, relation)) is not None
    ]
    found = [("By relation of the goals", ["relation: arm", *map(heading, names)], rows)] if rows else []
    named = [name for name in BY_ROLE if name in taken]
    return [*found, *(_by_role(results, arms, relation, named) for relation in results.relations() or [ALL])]


def difference_tables(results: PlayResults) -> list[Sheet]:
    """The paired tests of the measures in `HEADLINES`, where anything was tested."""
    return [sheet for name in HEADLINES if (sheet := paired_tests(results, name, show, by="scenario"))]


def play_markdown(results: PlayResults) -> str:
    """All tables in Markdown, under the title of the experiment."""
    title = f"# {plain_line(results.title or results.id)}"
    return "\n\n".join([title, about(results), *map(markdown_table, play_tables(results)), note(results)]) + "\n"


def about(results: PlayResults) -> str:
    """What was compared, in one sentence."""
    seeds = "1 seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"
    return (
        f"{len(results.scenarios)} scenarios, {seeds}, model {plain_line(results.model)}. In brackets: 95 % bootstrap "
        "intervals over scenarios, whose seeds are averaged first."
    )


def note(results: PlayResults) -> str:
    """What a reader has to know besides."""
    if not results.judged:
        return "What needs a judge is left out: it is not installed (`pip install 'steer[judge]'`)."
    return (
        f"`told`: a sentence is as near to the goal (cosine {results.threshold:.2f}) as one in a thousand "
        "unrelated pairs of sentence and goal, by an embedder that no arm uses. `reached`: told by the account of "
        "the run itself, with the model's own encoder. `nearest`: nearer than to any goal of another scenario. "
        "`ahead`: nearest of the scenario's own goals. `leakage`: nearness to a goal of the turns of those who do "
        "not have it."
    )


def show(value: Estimate, name: str, *, signed: bool = False) -> str:
    """A mean with its interval, in the measure's own format."""
    shown = show_value(value, PLAY_MEASURES[name], signed=signed)
    return shown.split(" (")[0] if value.pairs == 1 else shown  # one scenario has no interval


def _by_role(results: PlayResults, arms: list[str], relation: str, names: list[str]) -> Sheet:
    """What became of the goals of the first character, the second, ...: a line per arm and role."""
    lines = [
        [f"{role}: {arm}", str(row.measures[names[0]].pairs), *_row(row, [], names)]
        for role in ROLES
        for arm in arms
        if (row := results.row(arm, relation, role)) is not None
    ]
    where = "all scenarios" if relation == ALL else relation
    return f"By role, {where}", ["role: arm", "scenarios", *map(heading, names)], lines


def _row(row: PlayRow, first: list[str], names: Sequence[str]) -> list[str]:
    return [*first, *(show(row.measures[name], name) for name in names)]
