"""`steer trees`: looking at saved search trees, and handing them to other programs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agents.cli._options import JsonOption, OverwriteOption, refuse_existing
from agents.cli._output import output, plain
from agents.cli._trees import RootOption, ToText, TreesArgument, WordsOption, find_trees, of_root, open_words

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree as Branches

    from steer.search.tree import Tree

WORDS = 160  # characters of a span that are shown where the terminal is wide enough


Format = Literal["graphml", "json", "dot"]  # what trees are exported to


def show(
    ctx: typer.Context,
    run: TreesArgument,
    root: RootOption = None,
    depth: Annotated[int, typer.Option("--depth", min=1, help="Fold what is deeper, but for the chosen path.")] = 3,
    top: Annotated[int, typer.Option("--top", min=1, help="Children of a node to show, the best first.")] = 3,
    model: WordsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a search tree: values, visits, actions and the first words of each span, the chosen path in bold.

    Of a tree with several roots it shows the first, or the one that --root names. With --json nothing is folded.
    """
    say = output(ctx)
    from steer.search.export import to_json
    from steer.search.tree_file import load_tree

    loaded = [(path, *load_tree(path)) for path in find_trees(run)]
    if as_json:
        trees = []
        for path, tree, record in loaded:
            to_text = open_words(say, tree, record, model)
            trees.append({"file": path, "record": record, **to_json(tree, to_text, root=root)})
        say.json({"trees": trees})
        return
    from agents.cli._console import console

    screen = console()
    for path, tree, record in loaded:
        to_text = open_words(say, tree, record, model)
        if len(loaded) > 1:
            screen.rule(str(path))
        screen.print(_view(tree, root or 0, record, to_text, depth, top), soft_wrap=False)
        if root is None and len(tree.roots) > 1:
            say.note(f"root 0 of {len(tree.roots)}; --root N shows another")


def export(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="TREE", help="A tree file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    form: Annotated[
        Format | None, typer.Option("--format", help="By default what --out ends in.", show_default=False)
    ] = None,
    root: RootOption = None,
    model: WordsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a search tree as GraphML (Gephi, Cytoscape), JSON or Graphviz. Latents are left out."""
    say = output(ctx)
    endings: dict[str, Format] = {".graphml": "graphml", ".json": "json", ".dot": "dot", ".gv": "dot"}
    chosen = form or endings.get(out.suffix.lower())
    if chosen is None:
        raise typer.BadParameter(f"--out {out} ends in none of {', '.join(endings)}; give --format")
    refuse_existing(out, overwrite=overwrite)
    import json

    from steer.search.export import to_dot, to_json, write_graphml
    from steer.search.tree_file import load_tree

    tree, record = load_tree(source)
    to_text = open_words(say, tree, record, model)
    if chosen == "graphml":
        write_graphml(tree, out, to_text, root=root)
    elif chosen == "dot":
        out.write_text(to_dot(tree, to_text, root=root), encoding="utf-8", errors="replace")
    else:
        value = plain({"record": record, **to_json(tree, to_text, root=root)})
        out.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    say.result(str(out))


def stats(ctx: typer.Context, run: TreesArgument, root: RootOption = None, as_json: JsonOption = False) -> None:
    """Count nodes, tokens and finished candidates of each root, and tell the values found."""
    say = output(ctx)
    from steer.search.export import tree_stats
    from steer.search.tree_file import load_tree

    rows = []
    for path in find_trees(run):
        tree, record = load_tree(path)
        numbers = range(len(tree.roots)) if root is None else [root]
        for number in numbers:
            rows.append({"file": path, "stopped": of_root(record, "status", number), **tree_stats(tree, number)})
    if as_json:
        say.json({"roots": rows})
        return
    names = ("root", "nodes", "tokens", "complete", "pruned", "duplicate", "depth", "width", "value", "stopped")
    several = len({row["file"] for row in rows}) > 1
    shown = [["-" if row[name] is None else _short(row[name]) for name in names] for row in rows]
    files = [[row["file"].stem] if several else [] for row in rows]
    say.table(map(list.__add__, files, shown), *(["file"] if several else []), *names)


def _view(
    tree: "Tree", number: int, record: Mapping[str, Any], to_text: ToText | None, depth: int, top: int
) -> "Branches":
    """A tree of `rich`, one line per node."""
    from rich.text import Text
    from rich.tree import Tree as Branches

    from steer.search.export import by_value, chosen, nodes_of, words_of

    nodes = nodes_of(tree, number)
    root = nodes[0]
    path = set(tree.path(chosen(tree, root)))
    below = dict.fromkeys(nodes, 0)
    for node in reversed(nodes[1:]):
        below[int(tree.parent[node])] += below[node] + 1
    head = Text(f"root {number}", style="bold", no_wrap=True, overflow="ellipsis")
    terminal, status = of_root(record, "terminals", number), of_root(record, "status", number)
    known = (record.get("model"), record.get("policy"), status, f"{below[root]} nodes")
    head.append(f"  {', '.join(str(part) for part in known if part)}", style="not bold dim")
    head.append(f"\n{words_of(tree, root, to_text, WORDS)}", style="not bold")
    if isinstance(terminal, str):
        head.append(f"\ntowards: {terminal}", style="not bold italic")
    branches = Branches(head)
    waiting = [(root, branches)]
    while waiting:
        node, branch = waiting.pop()
        children = by_value(tree, node)
        limit = top if tree.depth[node] < depth else 0
        shown = [child for place, child in enumerate(children) if place < limit or child in path]
        for child in shown:
            line = _line(tree, child, record, child in path)
            line.append(f"  {words_of(tree, child, to_text, WORDS)}", style="" if child in path else "not bold")
            waiting.append((child, branch.add(line)))
        if folded := [child for child in children if child not in shown]:
            count = sum(below[child] + 1 for child in folded)
            best = _short(float(tree.value[folded[0]]))
            inside = f", {count} with those below" if count > len(folded) else ""
            branch.add(Text(f"... {len(folded)} more{inside}; the best {best}", style="dim"))
    return branches


def _line(tree: "Tree", node: int, record: Mapping[str, Any], on_path: bool) -> "Text":
    from rich.text import Text

    from steer.search.export import status_names

    line = Text(style="bold" if on_path else "", no_wrap=True, overflow="ellipsis")
    line.append(_short(float(tree.value[node])), style="cyan")
    line.append(f"  #{node}", style="dim")
    if visits := int(tree.visits[node]):
        line.append(f"  visits {visits}, mean {_short(tree.mean(node))}")
    menu = record.get("menu")
    if isinstance(menu, list) and len(menu) > 1 and 0 <= tree.action[node] < len(menu):
        action = menu[tree.action[node]]
        given = [f"{key} {value:g}" for key, value in dict(action).items() if isinstance(value, int | float)]
        line.append(f"  {', '.join(given)}", style="magenta")
    colours = {"committed": "green", "pruned": "red", "duplicate": "yellow", "ended": "blue", "complete": "blue"}
    for name in status_names(tree, node):
        mark = f"duplicate of #{tree.duplicate_of[node]}" if name == "duplicate" else name
        line.append(f"  {mark}", style=colours.get(name, ""))
    if tree.multiplicity[node] > 1:
        line.append(f"  drawn {tree.multiplicity[node]} times", style="yellow")
    return line


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else "-"
    return str(value)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module, as a group of their own."""
    group = typer.Typer(help="Look at saved search trees, and export them.", no_args_is_help=True)
    group.command(epilog="Example: steer trees show runs/tale-1 --top 2")(show)
    group.command(epilog="Example: steer trees export runs/tale-1/search/0001.safetensors --out tree.graphml")(export)
    group.command(epilog="Example: steer trees stats runs/tale-1 --json")(stats)
    app.add_typer(group, name="trees")
