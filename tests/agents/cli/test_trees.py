"""`steer trees`: what is shown of saved trees, and what is done without a tokenizer."""

import json
import shlex
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from agents.cli._app import load_command
from steer.search.tree_file import save_tree
from tests.agents.cli.conftest import MENU
from tests.agents.cli.kit import document, error_line, steer
from tests.steer.search.tree_kit import small_tree


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_a_tree(tree: Path) -> None:
    result = steer("trees", "show", tree)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("root 0  ") and lines[0].endswith("mcts, finished, 5 nodes")
    assert lines[1:3] == ["Once", "towards: The wolf slept."]
    assert [line.rsplit("  ")[-1] for line in lines[3:]] == ["a w", "olf.", "olf.", "!?", "the"]
    assert [line.split("#")[1].split()[0] for line in lines[3:]] == ["2", "4", "5", "6", "3"]
    assert "0.500" in lines[3] and "visits 4, mean 0.625" in lines[3] and "committed" in lines[3]
    assert "strength 0, guidance_scale 1" in lines[3] and "temperature" not in lines[3]
    assert "complete" in lines[4] and "drawn 2 times" in lines[4]
    assert "duplicate of #4" in lines[5] and "strength 0.5, guidance_scale 1.5, temperature 0.7" in lines[5]
    assert "ended" in lines[6] and "pruned" in lines[7]
    assert result.stderr.strip() == "root 0 of 2; --root N shows another"


def test_show_another_root(tree: Path) -> None:
    shown = steer("trees", "show", tree, "--root", 1)
    assert shown.stdout.startswith("root 1") and "out_of_tokens, 1 nodes" in shown.stdout and shown.stderr == ""
    assert "no root 5; the tree has 2" in error_line(steer("trees", "show", tree, "--root", 5))


def test_show_folds_but_for_the_chosen_path(run: Path) -> None:
    tree = run / "search" / "b.safetensors"
    lines = steer("trees", "show", tree, "--top", 2, "--depth", 2).stdout.splitlines()
    assert [
        line for line in lines if "4 more, 172 with those below; the best" in line
    ]  # 4 of 6 children, 43 nodes each
    assert sum("#258" in line for line in lines) == 1  # the best leaf, deeper than --depth
    assert sum("6 more; the best" in line for line in lines) == 3  # folded by --depth
    # 2 at depth 1, 4 at depth 2, the chosen leaf
    assert sum("#" in line for line in lines) == 7


def test_show_a_folder(run: Path) -> None:
    shown = steer("trees", "show", run, "--top", 1)
    assert "a.safetensors" in shown.stdout and "b.safetensors" in shown.stdout
    value = document(steer("trees", "show", run, "--json", "--root", 0))
    assert [len(found["nodes"]) for found in value["trees"]] == [6, 259]
    assert value["trees"][0]["record"]["menu"] == MENU
    assert value["trees"][0]["nodes"][0]["text"] == "Once"


def test_texts_are_no_markup_and_no_commands_for_the_terminal(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tiny_llama)("[red]x[/]\x1b[31m")["input_ids"]
    from steer.search.tree import Tree

    found = Tree(len(ids), 0)
    found.add(found.add_root(ids, seed=0, horizon=2), 0, ids)
    save_tree(found, tmp_path / "tree", {"model": str(tiny_llama)})
    shown = steer("trees", "show", tmp_path / "tree").stdout
    assert shown.count("[red]x[/] [31m") == 2 and "\x1b" not in shown


# -- tokenizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "the tree does not tell its model"),
        ({"model": "nobody/none"}, "cannot find model 'nobody/none'"),
        ({"model": 3}, "the tree does not tell its model"),
    ],
)
def test_without_a_tokenizer_token_ids_are_shown(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    save_tree(small_tree(), tmp_path / "tree", record)
    shown = steer("trees", "show", tmp_path / "tree")
    assert shown.exit_code == 0
    assert "33 255" in shown.stdout
    assert f"showing token ids: {message}" in shown.stderr
    assert (
        "text" not in document(steer("--quiet", "trees", "show", tmp_path / "tree", "--json"))["trees"][0]["nodes"][0]
    )


def test_a_tokenizer_that_was_asked_for_must_be_there(tree: Path, tiny_llama: Path, tmp_path: Path) -> None:
    assert "no model folder at" in error_line(steer("trees", "show", tree, "--model", tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert "no tokenizer in" in error_line(steer("trees", "show", tree, "--model", tmp_path / "empty"))
    found = small_tree()
    found.tokens[2, 0] = 5000
    save_tree(found, tmp_path / "tree", {"model": str(tiny_llama)})
    shown = steer("trees", "show", tmp_path / "tree")
    assert "has 258 tokens, the tree has token 5000" in shown.stderr and "5000" in shown.stdout


def test_the_packaged_model_is_found_by_its_own_name(tmp_path: Path) -> None:
    save_tree(small_tree(), tmp_path / "tree", {"model": "Llama-Fable-6M"})
    shown = steer("trees", "show", tmp_path / "tree")
    assert shown.exit_code == 0 and "showing token ids" not in shown.stderr
    assert "33 255" not in shown.stdout


# -- export and stats --------------------------------------------------------------------------------------------------


def test_export(tree: Path, tmp_path: Path) -> None:
    for name in ("tree.graphml", "tree.json", "tree.dot"):
        result = steer("trees", "export", tree, "--out", tmp_path / name)
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path / name}\n")
    xml.etree.ElementTree.parse(tmp_path / "tree.graphml")
    value = json.loads((tmp_path / "tree.json").read_text(encoding="utf-8"))
    assert value["record"]["policy"] == "mcts" and len(value["nodes"]) == 8
    assert (tmp_path / "tree.dot").read_text(encoding="utf-8").count("[label=") == 8
    assert "--overwrite" in error_line(steer("trees", "export", tree, "--out", tmp_path / "tree.dot"))
    again = ("trees", "export", tree, "--out", tmp_path / "tree.dot", "--overwrite", "--root", 1)
    assert steer(*again).exit_code == 0
    assert (tmp_path / "tree.dot").read_text(encoding="utf-8").count("[label=") == 2
    steer("trees", "export", tree, "--out", tmp_path / "tree.txt", "--format", "dot")
    assert (tmp_path / "tree.txt").read_text(encoding="utf-8").startswith("digraph")
    unknown = steer("trees", "export", tree, "--out", tmp_path / "tree.doc")
    assert unknown.exit_code == 2 and "--format" in unknown.stderr


def test_stats(run: Path, tree: Path) -> None:
    rows = document(steer("trees", "stats", run, "--json"))["roots"]
    assert [(Path(row["file"]).name, row["root"], row["nodes"], row["stopped"]) for row in rows] == [
        ("a.safetensors", 0, 5, "finished"),
        ("a.safetensors", 1, 1, "out_of_tokens"),
        ("b.safetensors", 0, 258, None),
    ]
    shown = steer("trees", "stats", tree, "--root", 0).stdout
    assert "finished" in shown and "out_of_tokens" not in shown
    assert "file" in steer("trees", "stats", run).stdout


@pytest.mark.parametrize("command", ["show", "stats"])
def test_what_is_no_tree(command: str, tmp_path: Path) -> None:
    assert "no search tree at" in error_line(steer("trees", command, tmp_path / "none"))
    assert "holds no search tree" in error_line(steer("trees", command, tmp_path))
    (tmp_path / "file").write_text("text", encoding="utf-8")
    assert "no safetensors file" in error_line(steer("trees", command, tmp_path / "file"))


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["show", "export", "stats"])
def test_every_command_has_an_example_that_parses(name: str) -> None:
    group = load_command("trees")
    words = shlex.split(group.commands[name].epilog.removeprefix("Example: "))
    assert words[:3] == ["steer", "trees", name]
    group.commands[name].make_context(name, words[3:], resilient_parsing=False)
    assert "Example" in steer("trees", name, "--help").stdout
