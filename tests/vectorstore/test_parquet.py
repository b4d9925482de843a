"""Parquet files: round trips, and what is refused."""

import sys

import numpy as np
import pytest

from vectorstore import (
    DimensionMismatch,
    DuplicateId,
    EncoderMismatch,
    InvalidRecord,
    MissingDependency,
    StorageFailure,
    VectorStore,
    parquet,
)

arrow = pytest.importorskip("pyarrow")
arrow_parquet = pytest.importorskip("pyarrow.parquet")

DIM = 8


@pytest.fixture
def exported(store, make, tmp_path, monkeypatch):
    """A file of 50 records in several row groups, and the store they are from."""
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 20)
    store.add(make(50))
    file = tmp_path / "records.parquet"
    assert store.export_parquet(file) == 50
    assert arrow_parquet.ParquetFile(file).num_row_groups == 3
    return file, store


def open_copy(folder, **options):
    return VectorStore.open(folder, **{"encoder": "test-encoder@1", "dim": DIM, **options})


def test_records_survive_the_round_trip(exported, tmp_path):
    file, store = exported
    with open_copy(tmp_path / "copy") as copy:
        assert copy.import_parquet(file) == 50
        assert list(copy.records()) == list(store.records())  # times included
        assert copy.verify() == []
        query = np.ones(DIM, np.float32)
        assert copy.search(query) == store.search(query)


def test_what_is_updated_during_an_export_can_be_imported(exported, tmp_path, monkeypatch):
    _, store = exported
    table, groups = parquet._arrow()[0].table, []

    def table_and_update(*arguments, **options):
        if not groups:
            store.update("r3", text="newer")
        groups.append(arguments)
        return table(*arguments, **options)

    monkeypatch.setattr(parquet._arrow()[0], "table", table_and_update)
    assert store.export_parquet(tmp_path / "again.parquet") == 50
    with open_copy(tmp_path / "copy") as copy:
        assert copy.import_parquet(tmp_path / "again.parquet") == 50


def test_filters_choose_what_is_exported(exported, tmp_path):
    _, store = exported
    file = tmp_path / "some.parquet"
    assert store.export_parquet(file, owner="Ada", where={"i": {"lt": 20}}) == 7
    assert arrow_parquet.read_table(file)["owner"].to_pylist() == ["Ada"] * 7
    assert store.export_parquet(file, owner="nobody") == 0
    assert arrow_parquet.read_table(file).num_rows == 0


def test_another_encoder_or_width_is_refused(exported, tmp_path):
    file, _ = exported
    with open_copy(tmp_path / "a", encoder="other") as copy, pytest.raises(EncoderMismatch, match="'test-encoder@1'"):
        copy.import_parquet(file)
    with open_copy(tmp_path / "b", dim=DIM + 1) as copy, pytest.raises(DimensionMismatch, match="width 8"):
        copy.import_parquet(file)


def test_an_import_is_all_or_nothing(exported, tmp_path, make):
    file, _ = exported
    with open_copy(tmp_path / "copy") as copy:
        copy.add([record for record in make(50) if record.id == "r45"])
        with pytest.raises(DuplicateId, match="r45"):
            copy.import_parquet(file)
        assert [record.id for record in copy.records()] == ["r45"]
        assert copy.verify() == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda table: table.drop_columns(["owner"]), "has other columns"),
        (lambda table: table.replace_schema_metadata({}), "does not say which encoder"),
        (lambda table: spoiled(table, "extra", "{"), "an extra that is not JSON"),
        (lambda table: spoiled(table, "kind", None), "empty cells"),
        (lambda table: spoiled(table, "kind", ""), r"kind\[3\] is empty"),
    ],
)
def test_what_cannot_be_stored_is_refused(exported, tmp_path, change, match):
    file, _ = exported
    arrow_parquet.write_table(change(arrow_parquet.read_table(file)), file)
    with open_copy(tmp_path / "copy") as copy:
        with pytest.raises(ValueError, match=match):
            copy.import_parquet(file)
        assert len(copy) == 0


def spoiled(table, name, value):
    values = table[name].to_pylist()
    values[3] = value
    return table.set_column(table.schema.get_field_index(name), name, arrow.array(values, arrow.string()))


def test_files_that_are_no_parquet_or_cannot_be_written(exported, tmp_path):
    file, store = exported
    file.write_bytes(b"no Parquet")
    for wrong in (file, tmp_path / "missing.parquet"):
        with pytest.raises(StorageFailure, match="cannot be read as Parquet"):
            store.import_parquet(wrong)
    with pytest.raises(StorageFailure, match="folder that can be written"):
        store.export_parquet(tmp_path / "no folder" / "file.parquet")
    assert len(store) == 50


def test_without_pyarrow_it_says_what_to_install(exported, monkeypatch):
    file, store = exported
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"pip install 'steer\[store\]'"):
        store.export_parquet(file)
    with pytest.raises(MissingDependency):
        store.import_parquet(file)


def test_invalid_record_is_a_value_error():
    assert issubclass(InvalidRecord, ValueError)
