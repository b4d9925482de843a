"""The public names, and what importing them costs."""

import subprocess
import sys
from pathlib import Path

import vectorstore
from vectorstore import errors

ROOT = Path(vectorstore.__file__).parents[1]
VALUES = {
    "Hit",
    "IndexConfig",
    "IndexKind",
    "Metric",
    "NewRecord",
    "Record",
    "RepairReport",
    "StoreStats",
    "VectorStore",
}


def test_all_is_exactly_the_public_names():
    error_names = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(vectorstore.__all__) == error_names | VALUES
    assert len(vectorstore.__all__) == len(set(vectorstore.__all__))
    submodules = {path.stem for path in ROOT.joinpath("vectorstore").iterdir()}
    assert {name for name in vars(vectorstore) if not name.startswith("_")} - submodules == set(vectorstore.__all__)


def test_every_error_is_of_the_package_and_a_builtin():
    tree = errors.__doc__ or ""
    for name in set(vectorstore.__all__) - VALUES - {"VectorStoreError"}:
        error = getattr(vectorstore, name)
        package_base, builtin = error.__bases__
        assert package_base is vectorstore.VectorStoreError
        assert any(f" {name} " in line and f"({builtin.__name__})" in line for line in tree.splitlines()), name
        assert str(error("what came")) == "what came"


def test_importing_loads_neither_torch_nor_faiss_and_adding_neither(tmp_path):
    script = f"""
import sys, numpy as np
from vectorstore import NewRecord, VectorStore
with VectorStore.open({str(tmp_path / "s")!r}, encoder="e", dim=2) as store:
    store.add(NewRecord(kind="k", text="t", vector=np.ones(2, np.float32)))
    assert not {{"torch", "faiss"}} & set(sys.modules)
    assert len(store.search(np.ones(2, np.float32))) == 1
    assert "faiss" in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_the_package_is_marked_as_typed():
    assert ROOT.joinpath("vectorstore", "py.typed").is_file()
