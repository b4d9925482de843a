"""Search trees for other programs: networkx, GraphML, JSON and Graphviz; and figures of one.

Latents are left out everywhere: `steer.search.tree_file` keeps those. `to_text` turns token ids into a string, as
`LatentModel.to_text` does; without it, nodes carry token ids alone. `root` is the number of a root, counted from 0;
None takes all of them.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from steer.errors import SearchError
from steer.search.fields import NONE, Status
from steer.search.tree import Tree

ToText = Callable[[Sequence[int]], str]

JSON_VERSION = 1
# Okabe and Ito's colours, the first that applies: committed, pruned, duplicate, complete.
COLOURS = {
    Status.COMMITTED: "#009E73",
    Status.PRUNED: "#BBBBBB",
    Status.DUPLICATE: "#CC79A7",
    Status.COMPLETE: "#0072B2",
}


def to_networkx(tree: Tree, to_text: ToText | None = None, *, root: int | None = None) -> nx.DiGraph:
    """The tree as a graph with an edge from each parent to its children.

    Every attribute is a string, an int or a float, so that any writer of networkx takes the graph. Nodes have `root`,
    `depth`, `index`, `action`, `key` (a string: it needs 63 bits), `status` (names, separated by spaces), `tokens`
    (ids, separated by spaces), `logprob`, `value`, `visits`, `mean`, `multiplicity`, a `components.<name>` for each
    reward component, where there is one a `duplicate_of`, and given `to_text`, `text`. Of a root, tokens and text are
    its context, and `horizon` and `deadline` are there.

    Raises:
        SearchError: there is no root of that number.
    """
    graph = nx.DiGraph(span_tokens=tree.span_tokens)
    for node in nodes_of(tree, root):
        record = _record(tree, node, to_text)
        record |= {f"components.{name}": value for name, value in record.pop("components").items()}
        record |= {name: " ".join(map(str, record[name])) for name in ("tokens", "status")}
        duplicate_of, parent, name = (record.pop(key) for key in ("duplicate_of", "parent", "id"))
        graph.add_node(name, **{key: math.nan if value is None else value for key, value in record.items()})
        if duplicate_of is not None:
            graph.nodes[name]["duplicate_of"] = duplicate_of
        if parent is not None:
            graph.add_edge(parent, name)
    return graph


def write_graphml(tree: Tree, path: str | Path, to_text: ToText | None = None, *, root: int | None = None) -> None:
    """Write `to_networkx` as GraphML, for Gephi, Cytoscape or yEd; characters that XML forbids become U+FFFD.

    Raises:
        SearchError: there is no root of that number.
        OSError: the file cannot be written.
    """
    graph = to_networkx(tree, to_text, root=root)
    for _, attributes in graph.nodes(data=True):
        if "text" in attributes:
            attributes["text"] = "".join(c if _is_xml(c) else "\ufffd" for c in attributes["text"])
    nx.write_graphml(graph, path)


def to_json(tree: Tree, to_text: ToText | None = None, *, root: int | None = None) -> dict[str, Any]:
    """The tree as values that JSON can hold; numbers that are not finite become None.

    Returns:
        `format` ("steer-search-tree"), `version`, `span_tokens`, `components` (names) and
        `roots`: a list of objects with `id`, `horizon`, `deadline` and `chosen` (see `chosen`);
        `nodes`: a list of objects in the order of their ids, which are their places in the whole tree: `id`, `parent`,
        `root`, `depth`, `index`, `action`, `key` (a string), `status` (list of names), `tokens`, `logprob`, `value`,
        `visits`, `mean`, `components` (object by name), `duplicate_of`, `multiplicity`, and given `to_text`, `text`.

    Raises:
        SearchError: there is no root of that number.
    """
    return {
        "format": "steer-search-tree",
        "version": JSON_VERSION,
        "span_tokens": tree.span_tokens,
        "components": list(tree.names),
        "roots": [
            {"id": n, "horizon": tree.horizon(n), "deadline": tree.deadline(n), "chosen": chosen(tree, n)}
            for n in _roots(tree, root)
        ],
        "nodes": [
            {k: v for k, v in _record(tree, node, to_text).items() if k not in ("horizon", "deadline")}
            for node in nodes_of(tree, root)
        ],
    }


def to_dot(tree: Tree, to_text: ToText | None = None, *, root: int | None = None, width: int = 32) -> str:
    """The tree in Graphviz's language; draw it with `dot -Tsvg`.

    Labels hold the value and the first words. Complete nodes are boxes, the path to each `chosen` node is thick, and
    colours tell the status: committed green, pruned grey, duplicates pink, else complete blue.

    Raises:
        SearchError: there is no root of that number.
    """
    thick = {node for n in _roots(tree, root) for node in tree.path(chosen(tree, n))}
    lines = ["digraph search {", '  rankdir="LR";', '  node [fontname="sans-serif", fontsize=10];']
    for node in nodes_of(tree, root):
        parent = int(tree.parent[node])
        head = f"root {tree.number(node)}" if parent == NONE else f"{float(tree.value[node]):.3f}"
        label = f"{head}\n{words_of(tree, node, to_text, width)}"
        options = {"label": label, "shape": "box" if tree.is_complete(node) else "ellipse"}
        colour = next((colour for status, colour in COLOURS.items() if tree.has(node, status)), None)
        if colour is not None:
            options |= {"color": colour, "fontcolor": colour}
        if node in thick:
            options["penwidth"] = "3"
        lines.append(f"  n{node} [{', '.join(f'{key}={_quoted(value)}' for key, value in options.items())}];")
        if parent != NONE:
            lines.append(f"  n{parent} -> n{node}" + (' [penwidth="3"];' if node in thick else ";"))
    return "\n".join([*lines, "}"]) + "\n"


def tree_stats(tree: Tree, root: int) -> dict[str, Any]:
    """Figures of one root: how many nodes of which kind, how deep and wide, and the values found.

    Returns:
        `nodes` (without the root), `tokens` written, `complete`, `ended`, `committed`, `pruned`, `duplicate`: counts;
        `depth` reached, `horizon`, `deadline`; `width`: the most nodes at one depth; `children`: mean over nodes that
        have any; `chosen`: id, `value` of it; `best`, `mean`: over the complete nodes' values, None where there are
        none.

    Raises:
        SearchError: there is no root of that number.
    """
    head = _roots(tree, root)[0]
    rows = np.array(nodes_of(tree, root)[1:], dtype=np.int64)
    status, depth = tree.status[rows], tree.depth[rows]
    inner = tree.n_children[[head, *rows]]
    complete = tree.value[rows][status & Status.COMPLETE != 0]
    pick = chosen(tree, head)
    return {
        "root": root,
        "nodes": len(rows),
        "tokens": int(tree.n_tokens[rows].sum()),
        **{bit.name.lower(): int((status & bit != 0).sum()) for bit in Status if bit.name},
        "depth": int(depth.max(initial=0)),
        "horizon": tree.horizon(head),
        "deadline": tree.deadline(head),
        "width": int(np.bincount(depth).max(initial=0)),
        "children": float(inner[inner > 0].mean()) if (inner > 0).any() else 0.0,
        "chosen": pick,
        "value": _finite(tree.value[pick]),
        "best": _finite(complete.max()) if len(complete) else None,
        "mean": _finite(complete.mean()) if len(complete) else None,
    }


def chosen(tree: Tree, root: int) -> int:
    """The node (of the root with this id) whose path is the answer: the best complete one, else the furthest."""
    best = tree.best(root)
    return tree.furthest(root) if best is None else best


def nodes_of(tree: Tree, root: int | None = None) -> list[int]:
    """Ids of the nodes of one root, itself first, or of the whole tree, in ascending order.

    Raises:
        SearchError: there is no root of that number.
    """
    if root is None:
        return list(range(tree.size))
    return np.flatnonzero(tree.root[: tree.size] == _roots(tree, root)[0]).tolist()


def status_names(tree: Tree, node: int) -> list[str]:
    """Names of a node's status bits, in small letters."""
    return [bit.name.lower() for bit in Status if bit.name and tree.has(node, bit)]


def by_value(tree: Tree, node: int) -> list[int]:
    """Children of a node, the greatest value first, the earlier first among equals; those without a value last."""
    values = {child: float(tree.value[child]) for child in tree.children(node)}
    return sorted(values, key=lambda child: (math.isnan(values[child]), -values[child], child))


def words_of(tree: Tree, node: int, to_text: ToText | None, width: int) -> str:
    """The first words of a node's span (of a root's context), or token ids where nothing makes words of them."""
    ids = tree.context(node) if tree.parent[node] == NONE else tree.span(node)
    return first_words(to_text(ids) if to_text else " ".join(map(str, ids)), width)


def first_words(text: str, width: int) -> str:
    """The beginning of a text on one line of at most `width` characters, cut between words where it can be.

    Characters that do not print (a terminal would obey some of them) and runs of white space become one space.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= width:
        return line
    cut = line[: max(1, width - 3)]
    return (cut[: cut.rfind(" ")] if " " in cut[width // 2 :] else cut).rstrip() + "..."


def _roots(tree: Tree, root: int | None) -> list[int]:
    if root is None:
        return tree.roots
    if not 0 <= root < len(tree.roots):
        raise SearchError(f"no root {root}; the tree has {len(tree.roots)}, counted from 0")
    return [tree.roots[root]]


def _record(tree: Tree, node: int, to_text: ToText | None) -> dict[str, Any]:
    is_root = tree.parent[node] == NONE
    ids = list(tree.context(node)) if is_root else tree.span(node)
    record: dict[str, Any] = {"id": node, "parent": None if is_root else int(tree.parent[node])}
    record |= {name: int(getattr(tree, name)[node]) for name in ("root", "depth", "index", "action")}
    record |= {"key": str(int(tree.key[node])), "status": status_names(tree, node), "tokens": ids}
    if to_text is not None:
        record["text"] = to_text(ids)
    if is_root:
        record |= {"horizon": tree.horizon(node), "deadline": tree.deadline(node)}
    duplicate_of = int(tree.duplicate_of[node])
    components = zip(tree.names, tree.components[node], strict=True)
    return record | {
        "logprob": _finite(tree.logprob[node]),
        "value": _finite(tree.value[node]),
        "visits": int(tree.visits[node]),
        "mean": _finite(tree.mean(node)),
        "components": {name: _finite(value) for name, value in components},
        "duplicate_of": None if duplicate_of == NONE else duplicate_of,
        "multiplicity": int(tree.multiplicity[node]),
    }


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _quoted(text: str) -> str:
    """A quoted string of Graphviz; a backslash would begin one of its own escapes, such as the node's name."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _is_xml(character: str) -> bool:
    code = ord(character)
    return character in "\t\n\r" or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
