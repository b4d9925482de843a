"""The index built, written and slimmed: when it is asked for, and in passing when a store is left."""

import logging

from vectorstore.errors import VectorStoreError
from vectorstore.index.config import IndexConfig, IndexKind, chosen_config
from vectorstore.index.sync import CONFIG_KEY, SyncedIndex
from vectorstore.operations.opening import AUTO
from vectorstore.table.access import TableAccess

logger = logging.getLogger(__name__)

_BESIDE_SHARE = 0.05  # of vectors that are compared one by one beside a built index, above which "auto" takes them in


def optimize(access: TableAccess, index: SyncedIndex, kind: IndexConfig | IndexKind | str | None) -> None:
    """Build the index of a kind and write its file; arguments and errors as `VectorStore.optimize`."""
    with access.lock:
        with access.transaction() as table:
            present = index.config()
            config = chosen_config(kind, present, table.count())
            index.optimize(config)
        if access.readonly:
            return
        if config != present:
            with access.transaction(write=True) as table:
                table.set_value(CONFIG_KEY, config.dump())
        index.save()


def rebuild(access: TableAccess, index: SyncedIndex) -> None:
    """Build the index anew from the records, and write its file; errors as `VectorStore.rebuild`."""
    with access.lock:
        with access.transaction():
            index.rebuild()
        if not access.readonly:
            index.save()


def compact(access: TableAccess, index: SyncedIndex) -> None:
    """Give back the space of deleted records, in the index and in the database."""
    with access.lock:
        with access.transaction(write=True):
            index.sync()
        if any(len(segment.dead) for segment in index.segments):
            rebuild(access, index)
        access.table().vacuum()


def leave(access: TableAccess, index: SyncedIndex, *, auto: bool) -> None:
    """Bring the index file up to date, if much has changed; a failure is only logged: the records can rebuild it."""
    try:
        if auto and _outgrown(access, index):
            optimize(access, index, AUTO)
        index.save(always=False)
    except VectorStoreError as error:
        logger.warning("the index of %s was not saved (%s); the records can rebuild it", access.folder, error)


def _outgrown(access: TableAccess, index: SyncedIndex) -> bool:
    """Whether "auto" would choose another kind, or much was added beside the built part of the index."""
    with access.transaction() as table:
        present, count = index.config(), table.count()
        return chosen_config(AUTO, present, count) != present or index.beside > _BESIDE_SHARE * count
