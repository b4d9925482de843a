"""Saved search trees: what comes back is what was saved, and nothing else is taken for a tree."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from steer.errors import SearchError
from steer.search import tree_file as saving
from steer.search.fields import FIELDS
from steer.search.links import check_links
from steer.search.tree import Tree
from steer.search.tree_file import KEY, load_tree, save_tree
from tests.steer.search.tree_kit import small_tree, wide_tree

RECORD: dict[str, Any] = {
    "model": "Llama-Fable-6M",
    "policy": "mcts",
    "menu": [{"strength": 0.0, "scale": 1.0, "temperature": None}],
    "seeds": [2**63 - 1],
    "terminals": ["Füchse \ud800 \x00"],
    "value": 0.1,
}


def assert_same(a: Tree, b: Tree) -> None:
    for name, array in a.arrays().items():
        other = b.arrays()[name]
        assert array.dtype == other.dtype and array.tobytes() == other.tobytes(), name
    for name in ("size", "span_tokens", "z_dim", "names", "roots", "contexts", "horizons", "deadlines", "_children"):
        assert getattr(a, name) == getattr(b, name), name


def rewrite(path: Path, *, header: dict[str, Any] | None = None, **arrays: Any) -> None:
    """Change parts of a saved tree; with `arrays`, its digest is made to fit again."""
    with safe_open(path, framework="numpy") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}
        old = json.loads(file.metadata()[KEY])
    found |= arrays
    new = old | (header or {})
    if arrays:
        new["sha256"] = saving._digest(found, {key: value for key, value in new.items() if key != "sha256"})
    save_file(found, path, {KEY: json.dumps(new)})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_tree(small_tree(), tmp_path / "tree.safetensors", RECORD)
    return tmp_path / "tree.safetensors"


# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param(small_tree(), id="every status"),
        pytest.param(wide_tree(3, 4), id="neither latents nor components"),
        pytest.param(wide_tree(1, 0, horizon=1), id="a root alone"),
    ],
)
def test_round_trip_is_bit_exact(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "search" / "tree.safetensors"  # the folder is made
    save_tree(tree, path, RECORD)
    loaded, record = load_tree(path)
    assert_same(tree, loaded)
    assert record == RECORD
    assert os.listdir(path.parent) == [path.name]


def test_odd_floats_come_back(tmp_path: Path) -> None:
    tree = small_tree()
    tree.latent[2] = np.array([np.nan, -0.0, np.finfo(np.float32).smallest_subnormal], np.float32)
    tree.latent.view(np.uint32)[3, 0] = 0x7FC0_1234  # a NaN with a payload
    tree.value[2], tree.total[2] = -np.inf, 1e300
    save_tree(tree, tmp_path / "tree", {"value": float("-inf")})
    loaded, record = load_tree(tmp_path / "tree")
    assert_same(tree, loaded)
    assert record == {"value": float("-inf")}


def test_a_loaded_tree_grows_as_the_saved_one_would(saved: Path) -> None:
    tree, (loaded, _) = small_tree(), load_tree(saved)
    for grown in (tree, loaded):
        node = grown.add(7, 0, tuple(b"more"), latent=np.full(3, 0.1, np.float32))
        grown.add(7, 1, tuple(b"more"))
        grown.back_up(node, 0.25)
    assert_same(tree, loaded)
    save_tree(loaded, saved, RECORD)
    assert_same(tree, load_tree(saved)[0])


def test_the_same_tree_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    loaded, record = load_tree(saved)
    save_tree(loaded, tmp_path / "again", record)
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


# -- saving ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SearchError, match="no root yet"):
        save_tree(Tree(2, 0), tmp_path / "tree", {})
    with pytest.raises(SearchError, match="must be JSON"):
        save_tree(small_tree(), tmp_path / "tree", {"path": tmp_path})
    monkeypatch.setattr(saving, "MAX_RECORD", 10)
    with pytest.raises(SearchError, match="keep texts elsewhere"):
        save_tree(small_tree(), tmp_path / "tree", RECORD)
    assert os.listdir(tmp_path) == []


def test_a_refused_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def replace(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        save_tree(wide_tree(2, 2), saved, {})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_what_safetensors_cannot_write_is_an_error_of_the_file_system(saved: Path) -> None:
    before = saved.read_bytes()
    draft = saved.with_name(f".{saved.name}.{os.getpid()}.part")
    draft.mkdir()  # in the draft's place, so that writing it fails even for an administrator
    with pytest.raises(OSError, match=r"cannot write .*tree\.safetensors"):
        save_tree(wide_tree(2, 2), saved, {})
    assert saved.read_bytes() == before


# -- loading -----------------------------------------------------------------------------------------------------------


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no search tree at"):
        load_tree(tmp_path / "none")
    with pytest.raises(SearchError, match="is a folder"):
        load_tree(tmp_path)
    (tmp_path / "text").write_text("once upon a time", encoding="utf-8")
    (tmp_path / "empty").touch()
    for name in ("text", "empty"):
        with pytest.raises(SearchError, match="no safetensors file"):
            load_tree(tmp_path / name)
    save_file({"weight": np.zeros(2, np.float32)}, tmp_path / "heads", {"format": "pt"})
    with pytest.raises(SearchError, match="no search tree"):
        load_tree(tmp_path / "heads")


def test_every_truncation_is_told(saved: Path) -> None:
    data = saved.read_bytes()
    for size in range(0, len(data), 97):
        saved.write_bytes(data[:size])
        with pytest.raises(SearchError, match="truncated"):
            load_tree(saved)


def test_every_changed_byte_is_told(saved: Path) -> None:
    data = saved.read_bytes()
    for place in range(0, len(data), 23):
        saved.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(SearchError, match=r"tree\.safetensors"):
            load_tree(saved)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": 2}, "has format version 2, this steer reads 1; update steer"),
        ({"version": 0}, "make the tree again"),
        ({"record": []}, "its record is no object"),
        ({"record": {"policy": "beam"}}, "SHA-256"),
        ({"sha256": None}, "SHA-256"),
    ],
)
def test_other_headers(saved: Path, header: dict[str, Any], message: str) -> None:
    rewrite(saved, header=header)
    with pytest.raises(SearchError, match=message):
        load_tree(saved)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("parent", 4, 6, "comes before its parent"),
        ("first_child", 0, 5, "first_child of node 0 is 5, expected 2"),
        ("next_sibling", 5, 4, "next_sibling of node 5"),  # a ring: walking it would never end
        ("depth", 4, 1, "depth of node 4"),
        ("n_tokens", 4, 9, "longer than its tokens"),
        ("duplicate_of", 5, 6, "a duplicate comes later"),
        ("context_offsets", 1, 99, "do not fit their offsets"),
    ],
)
def test_files_that_fit_their_digest_but_no_forest(
    saved: Path, name: str, place: int, value: int, message: str
) -> None:
    with safe_open(saved, framework="numpy") as file:
        array = file.get_tensor(name)
    array[place] = value
    rewrite(saved, **{name: array})
    with pytest.raises(SearchError, match=message):
        load_tree(saved)


def test_arrays_that_are_missing_or_too_many(saved: Path) -> None:
    rewrite(saved, extra=np.zeros(1, np.float32))
    with pytest.raises(SearchError, match="'extra'"):
        load_tree(saved)


def test_links_of_sound_trees_pass() -> None:
    for tree in (small_tree(), wide_tree(3, 3)):
        check_links(Tree.of(tree.arrays(), components=tree.names, **roots_of(tree)))
    assert set(FIELDS).isdisjoint(saving.ROOT_ARRAYS)


def roots_of(tree: Tree) -> dict[str, Any]:
    return {"contexts": tree.contexts, "horizons": tree.horizons, "deadlines": tree.deadlines}
