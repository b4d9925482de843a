"""Exported trees: the graph is the tree, other programs can read it, and nothing in a text breaks a format."""

import json
import math
import re
import xml.etree.ElementTree
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from steer.errors import SearchError
from steer.search.export import (
    by_value,
    chosen,
    first_words,
    nodes_of,
    status_names,
    to_dot,
    to_json,
    to_networkx,
    tree_stats,
    words_of,
    write_graphml,
)
from steer.search.fields import NONE, Status
from steer.search.tree import Tree
from tests.steer.search.tree_kit import COMPONENTS, letters, small_tree, wide_tree


def nasty_tree(text: str) -> Tree:
    tree = Tree(64, 0)
    tree.add_root(tuple(text.encode("latin-1")), seed=0, horizon=1)
    return tree


# -- networkx ----------------------------------------------------------------------------------------------------------


def test_the_graph_is_the_tree() -> None:
    tree = small_tree()
    graph = to_networkx(tree, letters)
    assert sorted(graph) == list(range(tree.size))
    assert set(graph.edges) == {(int(p), n) for n, p in enumerate(tree.parent[: tree.size]) if p != NONE}
    assert nx.is_forest(graph)
    for root in tree.roots:
        depths = nx.single_source_shortest_path_length(graph, root)
        assert {node: graph.nodes[node]["depth"] for node in depths} == depths
    node = graph.nodes[4]
    assert (node["text"], node["tokens"], node["status"]) == ("olf.", "111 108 102 46", "complete committed")
    assert (node["visits"], node["multiplicity"], node["action"]) == (1, 2, 0)
    assert node["key"] == str(int(tree.key[4]))
    assert [node[f"components.{name}"] for name in COMPONENTS] == [float(np.float32(0.9)), -1.5]
    assert graph.nodes[5]["duplicate_of"] == 4 and "duplicate_of" not in node
    assert graph.nodes[0]["text"] == "Once" and graph.nodes[1]["deadline"] == 4
    assert "text" not in to_networkx(tree).nodes[4]


def test_one_root_alone() -> None:
    tree = small_tree()
    assert set(to_networkx(tree, root=1)) == {1, 7} == set(nodes_of(tree, 1))
    for number in (2, -1):
        with pytest.raises(SearchError, match="the tree has 2, counted from 0"):
            to_networkx(tree, root=number)


def test_graphml_comes_back(tmp_path: Path) -> None:
    tree = small_tree()
    tree.value[7] = np.nan
    write_graphml(tree, tmp_path / "tree.graphml", letters)
    graph, read = to_networkx(tree, letters), nx.read_graphml(tmp_path / "tree.graphml", node_type=int)
    assert set(read.edges) == set(graph.edges)
    assert math.isnan(read.nodes[7].pop("value")) and math.isnan(graph.nodes[7].pop("value"))
    assert math.isnan(read.nodes[7].pop("mean")) is math.isnan(graph.nodes[7].pop("mean"))
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))


def test_graphml_of_characters_that_xml_forbids(tmp_path: Path) -> None:
    write_graphml(nasty_tree("a\x00\x1b<&>\"'\n\xff"), tmp_path / "x", letters)
    xml.etree.ElementTree.parse(tmp_path / "x")
    assert nx.read_graphml(tmp_path / "x").nodes["0"]["text"] == "a\ufffd\ufffd<&>\"'\n\xff"


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_json_holds_every_node() -> None:
    tree = small_tree()
    tree.value[3] = -np.inf
    value = json.loads(json.dumps(to_json(tree, letters), allow_nan=False))
    assert [node["id"] for node in value["nodes"]] == list(range(tree.size))
    assert [node["parent"] for node in value["nodes"]][:4] == [None, None, 0, 0]
    assert value["roots"][0] == {"id": 0, "horizon": 2, "deadline": 2, "chosen": 4}
    assert value["roots"][1]["chosen"] == 7  # nothing is complete: the furthest
    node = value["nodes"][5]
    assert node["status"] == ["complete", "duplicate"] and node["duplicate_of"] == 4
    assert node["components"] == {"similarity": float(np.float32(0.9)), "fluency": -1.5}
    assert node["tokens"] == list(b"olf.") and node["text"] == "olf."
    assert value["nodes"][3]["value"] is None
    assert int(value["nodes"][0]["key"]) == 2**62 + 1
    assert "text" not in to_json(tree)["nodes"][2]
    assert [n["id"] for n in to_json(tree, root=1)["nodes"]] == [1, 7]


# -- Graphviz ----------------------------------------------------------------------------------------------------------


def test_dot_has_a_statement_for_each_node_and_edge() -> None:
    dot = to_dot(small_tree(), letters)
    assert dot.startswith("digraph search {\n") and dot.endswith("}\n")
    assert len(re.findall(r"^  n\d+ \[", dot, re.MULTILINE)) == 8
    assert len(re.findall(r"^  n\d+ -> n\d+", dot, re.MULTILINE)) == 6
    lines = dict(re.findall(r"^  n(\d+) \[(.*)\];$", dot, re.MULTILINE))
    assert 'color="#009E73"' in lines["4"] and 'penwidth="3"' in lines["4"] and 'shape="box"' in lines["4"]
    assert 'color="#BBBBBB"' in lines["3"] and 'color="#CC79A7"' in lines["5"] and 'color="#0072B2"' in lines["6"]
    assert r'label="0.500\na w"' in lines["2"] and 'shape="ellipse"' in lines["2"]
    assert r'label="0.100\n32 116 104 101"' in to_dot(small_tree())


def test_dot_of_a_text_that_looks_like_dot() -> None:
    dot = to_dot(nasty_tree('"]; n9 -> n8; \\N \\" <b>\n\x00 \x1b[31m'), letters)
    label = re.search(r"^  n0 \[label=\"((?:[^\"\\]|\\.)*)\", shape=\"ellipse\"\];$", dot, re.MULTILINE)
    assert label is not None
    # Read as Graphviz reads it: \n is a line break, any other backslash keeps the character behind it.
    text = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], label[1])
    assert text == 'root 0\n"]; n9 -> n8; \\N \\" <b> [31m'


# -- figures and helpers -----------------------------------------------------------------------------------------------


def test_stats_of_a_hand_made_tree() -> None:
    tree = small_tree()
    assert tree_stats(tree, 0) == {
        "root": 0,
        "nodes": 5,
        "tokens": 18,
        "ended": 1,
        "complete": 3,
        "committed": 2,
        "pruned": 1,
        "duplicate": 1,
        "depth": 2,
        "horizon": 2,
        "deadline": 2,
        "width": 3,
        "children": 2.5,
        "chosen": 4,
        "value": pytest.approx(0.9),
        "best": pytest.approx(0.9),
        "mean": pytest.approx(2 / 3),
    }
    empty = tree_stats(wide_tree(1, 0, horizon=1), 0)
    assert (empty["nodes"], empty["depth"], empty["children"], empty["best"]) == (0, 0, 0.0, None)


def test_the_order_of_siblings() -> None:
    tree = small_tree()
    assert by_value(tree, 2) == [4, 5, 6]
    tree.value[4], tree.value[6] = np.nan, np.inf
    assert by_value(tree, 2) == [6, 5, 4]
    assert chosen(small_tree(), 0) == 4


def test_names_of_status_bits() -> None:
    tree = small_tree()
    assert status_names(tree, 0) == []
    tree.mark(0, Status.ENDED | Status.PRUNED)
    assert status_names(tree, 0) == ["ended", "pruned"]


@pytest.mark.parametrize(
    ("text", "width", "words"),
    [
        ("One  two\n\tthree", 40, "One two three"),
        ("One two three four", 12, "One two..."),
        ("Donaudampfschiff", 9, "Donaud..."),
        ("\x1b[31mred\x07\u202e", 40, "[31mred"),
        ("", 5, ""),
    ],
)
def test_first_words(text: str, width: int, words: str) -> None:
    assert first_words(text, width) == words
    assert len(words) <= width


def test_words_are_token_ids_without_a_tokenizer() -> None:
    assert words_of(small_tree(), 6, None, 40) == "33 255"
    assert words_of(small_tree(), 6, letters, 40) == "!\xff"
