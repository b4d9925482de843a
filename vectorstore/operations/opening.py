"""Opening a store: the arguments checked, the file opened or created, and what is declared for it written down."""

from collections.abc import Sequence
from pathlib import Path

from vectorstore.checks import check_string, checked_metric, positive_int
from vectorstore.errors import InvalidArgument
from vectorstore.files import RECORDS_FILE
from vectorstore.filters import make_condition
from vectorstore.index.config import IndexConfig, IndexKind, chosen_config
from vectorstore.index.sync import CONFIG_KEY
from vectorstore.table.records import RecordTable
from vectorstore.types import Metric

AUTO = "auto"  # leaves the kind of index to the number of records


def open_table(
    folder: Path,
    *,
    encoder: str | None,
    dim: int | None,
    metric: Metric,
    readonly: bool,
    index: IndexConfig | IndexKind | str | None,
    indexed: Sequence[str],
) -> RecordTable:
    """Open the table of the store in `folder`, or create it; arguments and errors as `VectorStore.open`."""
    check_string("encoder", encoder, optional=True)
    if encoder == "":
        raise InvalidArgument("encoder is empty; expected a string of at least one character")
    dim = None if dim is None else positive_int("dim", dim)
    metric = checked_metric(metric)
    wanted = None if index is None or index == AUTO else chosen_config(index, IndexConfig(), 0)
    make_condition(None, None, dict.fromkeys(indexed))
    table = RecordTable(folder / RECORDS_FILE, encoder=encoder, dim=dim, metric=metric, readonly=readonly)
    try:
        if not readonly:
            _declare(table, wanted, indexed)
    except BaseException:
        table.close()
        raise
    return table


def _declare(table: RecordTable, wanted: IndexConfig | None, indexed: Sequence[str]) -> None:
    """Write down a configuration if the store has none, and have SQLite index the fields that it does not yet."""
    # Looked up before anything is written: opening a store as it is needs no write lock.
    with table.transaction():
        missing = set(indexed) - set(table.indexed_fields())
        chosen = wanted if table.value(CONFIG_KEY) is None else None
    if missing or chosen is not None:
        with table.transaction(write=True):
            table.index_fields(sorted(missing))
            if chosen is not None:
                table.set_value(CONFIG_KEY, chosen.dump())
