"""`steer search`: looking at saved search trees, and handing them to other programs."""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli.guard import InputError
from agents.cli.models import JsonOption, OverwriteOption, quiet_libraries, refuse_existing
from agents.cli.output import Output, output, plain

WORDS = 160  # characters of a span that are shown where the terminal is wide enough
FOLDER = "search"  # where a run keeps its trees

TreesArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A tree file, or a run's folder that holds search/*.safetensors.")
]
RootOption = Annotated[int | None, typer.Option("--root", min=0, help="Number of a root, counted from 0.")]
WordsOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Whose tokenizer makes words of the tokens; by default the tree's own model."),
]
ToText = Callable[[Sequence[int]], str]


class Format(StrEnum):
    """What trees are exported to."""

    GRAPHML = "graphml"
    JSON = "json"
    DOT = "dot"


def show(
    ctx: typer.Context,
    run: TreesArgument,
    root: RootOption = None,
    depth: Annotated[int, typer.Option("--depth", min=1, help="Fold what is deeper, but for the chosen path.")] = 3,
    top: Annotated[int, typer.Option("--top", min=1, help="Show so many children of each node, the best.")] = 3,
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
    from rich.console import Console

    console = Console(highlight=False)
    for path, tree, record in loaded:
        to_text = open_words(say, tree, record, model)
        if len(loaded) > 1:
            console.rule(str(path))
        console.print(_view(tree, root or 0, record, to_text, depth, top), soft_wrap=False)
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
    endings = {".graphml": Format.GRAPHML, ".json": Format.JSON, ".dot": Format.DOT, ".gv": Format.DOT}
    chosen = form or endings.get(out.suffix.lower())
    if chosen is None:
        raise typer.BadParameter(f"--out {out} ends in none of {', '.join(endings)}; give --format")
    refuse_existing(out, overwrite=overwrite)
    import json

    from steer.search.export import to_dot, to_json, write_graphml
    from steer.search.tree_file import load_tree

    tree, record = load_tree(source)
    to_text = open_words(say, tree, record, model)
    if chosen is Format.GRAPHML:
        write_graphml(tree, out, to_text, root=root)
    elif chosen is Format.DOT:
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
    from rich.console import Console
    from rich.table import Table

    names = ("root", "nodes", "tokens", "complete", "pruned", "duplicate", "depth", "width", "value", "stopped")
    several = len({row["file"] for row in rows}) > 1
    table = Table(*(["file"] if several else []), *names)
    for row in rows:
        cells = ["-" if row[name] is None else _short(row[name]) for name in names]
        table.add_row(*([row["file"].stem] if several else []), *cells)
    Console(highlight=False).print(table)


def find_trees(run: Path) -> list[Path]:
    """The tree files that RUN names: itself, or those in its folder `search`, or in itself, sorted by name.

    Raises:
        InputError: there are none.
    """
    if run.is_file():
        return [run]
    if not run.exists():
        raise InputError(f"no search tree at {run}")
    found = sorted((run / FOLDER).glob("*.safetensors")) or sorted(run.glob("*.safetensors"))
    if not found:
        raise InputError(f"{run} holds no search tree; expected {run / FOLDER}/*.safetensors")
    return found


def open_words(say: Output, tree: Any, record: Mapping[str, Any], model: str | None) -> ToText | None:
    """What makes words of a tree's tokens: the tokenizer of `model`, or of the model that the record names.

    Nothing is downloaded. Where the record's own model has no tokenizer here, a note tells so, and it is None.

    Raises:
        SteerError: `model` was asked for and has no tokenizer, or one that does not know the tree's tokens.
    """
    from steer.errors import CheckpointError, ModelNotFound

    name = model or record.get("model")
    try:
        if not isinstance(name, str):
            raise ModelNotFound("the tree does not tell its model")
        with say.status("loading the tokenizer"):
            quiet_libraries(say)
            tokenizer = _tokenizer(name)
        highest = max(int(tree.tokens[: tree.size].max()), *(max(context, default=0) for context in tree.contexts))
        if highest >= len(tokenizer):
            raise ModelNotFound(f"the tokenizer of {name!r} has {len(tokenizer)} tokens, the tree has token {highest}")
    except (ModelNotFound, CheckpointError) as error:
        if model is not None:
            raise
        say.note(f"showing token ids: {error}; --model FOLDER names a model with the tree's tokenizer")
        return None
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True)


def of_root(record: Mapping[str, Any], key: str, number: int) -> Any:
    """What a record's list says about one root, or None."""
    values = record.get(key)
    return values[number] if isinstance(values, list) and number < len(values) else None


def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    from steer.errors import ModelNotFound
    from steer.models.checkpoint import PACKAGED_BASE, fetch, packaged_model
    from steer.models.config import CONFIG_NAME, LatentConfig

    # Records hold the model's own name, which differs from its folder's in capitals.
    packaged = name.lower() == packaged_model().name and not Path(name).is_dir()
    folder = fetch(packaged_model().name if packaged else name, local_files_only=True)
    where: str | Path = folder
    if (folder / CONFIG_NAME).is_file():
        base = LatentConfig.load(folder).base.name
        where = folder / PACKAGED_BASE if base == PACKAGED_BASE else base
    try:
        return AutoTokenizer.from_pretrained(where, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFound(f"no tokenizer in {str(where)!r}: {reason}") from error


def _view(tree: Any, number: int, record: Mapping[str, Any], to_text: ToText | None, depth: int, top: int) -> Any:
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


def _line(tree: Any, node: int, record: Mapping[str, Any], on_path: bool) -> Any:
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
        mark = f"duplicate of #{tree.twin[node]}" if name == "duplicate" else name
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
    group.command(epilog="Example: steer search show runs/tale-1 --top 2")(show)
    group.command(epilog="Example: steer search export runs/tale-1/search/0001.safetensors --out tree.graphml")(export)
    group.command(epilog="Example: steer search stats runs/tale-1 --json")(stats)
    app.add_typer(group, name="search")
