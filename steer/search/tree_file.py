"""A search tree as one `.safetensors` file, whole or not at all, bit for bit.

```
<every array of steer.search.fields.FIELDS> the used rows, as they are in memory
contexts                                    int32 [T], the tokens of all roots' contexts, one after the other
context_offsets                             int64 [R + 1], where each begins and ends
horizons, deadlines                         int32 [R]
metadata "steer_search_tree"                JSON: version, components, record, sha256 of all of it
```

The same tree and record give the same bytes. Nothing in the file is ever executed, so files of strangers can be opened.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from steer.errors import SearchError
from steer.files import sync_folder
from steer.search.fields import FIELDS
from steer.search.tree import Tree

FORMAT_VERSION = 1
KEY = "steer_search_tree"
ROOT_ARRAYS = ("contexts", "context_offsets", "horizons", "deadlines")
MAX_RECORD = 64 * 2**20  # bytes; readers of safetensors refuse headers above 100 MB

Arrays = Mapping[str, NDArray[Any]]


def save_tree(tree: Tree, path: str | Path, record: Mapping[str, Any]) -> None:
    """Write a tree, and what it was made with, to one file; a file that is there is replaced, in one step.

    Args:
        tree: with at least one root.
        path: of the file, by custom ending in `.safetensors`; its folder is made.
        record: anything that JSON can hold: the model, the policy and its options, the menu, seeds.

    Raises:
        SearchError: the tree is empty, or the record is not JSON or larger than 64 MiB.
        OSError: the file system refused; a file that was there before is as it was.
    """
    if tree.size == 0:
        raise SearchError("the tree has no root yet; there is nothing to save")
    arrays = dict(tree.arrays()) | _root_arrays(tree)
    header = {"version": FORMAT_VERSION, "components": list(tree.names), "record": _checked(record)}
    header["sha256"] = _digest(arrays, header)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another process may be saving to the same name; the last one to finish wins, and neither spoils the other's draft.
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.unlink(missing_ok=True)  # it may be a link that somebody put there
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft, {KEY: _json(header)})
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except (SafetensorError, OSError) as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # the error that brought us here says more
            draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def load_tree(path: str | Path) -> tuple[Tree, dict[str, Any]]:
    """Read a tree, and the record that was saved with it.

    Raises:
        SearchError: there is no such file, or it is truncated, changed, of a newer version or no search tree.
    """
    path = Path(path)
    if path.is_dir():
        raise SearchError(f"{path} is a folder; expected a file as save_tree writes it")
    if not path.is_file():
        raise SearchError(f"no search tree at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()} if text is not None else {}
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise SearchError(f"{path} is truncated, or no safetensors file ({error}); copy it again") from error
    if text is None:
        raise SearchError(f"{path} is a safetensors file, but no search tree; expected one that save_tree wrote")
    header = _read_header(text, path)
    if missing := sorted({*FIELDS, *ROOT_ARRAYS} ^ arrays.keys()):
        raise SearchError(f"{path} lacks arrays of a tree or has others, the first {missing[0]!r}; it was changed")
    if header.pop("sha256", None) != _digest(arrays, header):
        raise SearchError(f"{path} is damaged or was changed: its SHA-256 is not the recorded one; copy it again")
    try:
        tree = _tree(arrays, header["components"])
    except SearchError as error:
        raise SearchError(f"{path}: {error}") from error
    return tree, header["record"]


def _root_arrays(tree: Tree) -> dict[str, NDArray[Any]]:
    lengths = [len(context) for context in tree.contexts]
    flat = [token for context in tree.contexts for token in context]
    return {
        "contexts": np.array(flat, np.int32),
        "context_offsets": np.cumsum([0, *lengths], dtype=np.int64),
        "horizons": np.array(tree.horizons, np.int32),
        "deadlines": np.array(tree.deadlines, np.int32),
    }


def _tree(arrays: Arrays, components: list[str]) -> Tree:
    offsets, flat = arrays["context_offsets"], arrays["contexts"]
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(flat) or (np.diff(offsets) < 0).any():
        raise SearchError("the contexts do not fit their offsets")
    contexts = [flat[start:stop].tolist() for start, stop in zip(offsets[:-1], offsets[1:], strict=True)]
    return Tree.of(
        {name: arrays[name] for name in FIELDS},
        components=components,
        contexts=contexts,
        horizons=arrays["horizons"].tolist(),
        deadlines=arrays["deadlines"].tolist(),
    )


def _read_header(text: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
        version, components, record = header["version"], header["components"], header["record"]
    except (ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path}: its description is damaged ({error}); copy it again") from error
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        advice = "update steer" if newer else "make the tree again"
        raise SearchError(f"{path} has format version {version}, this steer reads {FORMAT_VERSION}; {advice}")
    if not isinstance(components, list) or not isinstance(record, dict):
        raise SearchError(f"{path}: its components are no list or its record is no object; it was changed")
    return header


def _checked(record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = _json(dict(record))
    except (TypeError, ValueError) as error:
        raise SearchError(f"the record of a tree must be JSON: {error}") from error
    if len(text) > MAX_RECORD:
        raise SearchError(f"the record of a tree has {len(text)} bytes, more than {MAX_RECORD}; keep texts elsewhere")
    return json.loads(text)


def _json(value: Any) -> str:
    # NaN stays NaN: a value that nobody could measure is no reason to lose a search.
    return json.dumps(value, separators=(",", ":"))


def _digest(arrays: Arrays, header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(_json(header).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
