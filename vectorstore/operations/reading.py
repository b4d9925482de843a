"""Records read by id or one after the other. An iteration is many transactions: it never keeps a writer waiting."""

from array import array
from collections.abc import Iterator
from itertools import islice

from vectorstore.checks import positive_int
from vectorstore.filters import Condition, make_condition
from vectorstore.table.access import TableAccess
from vectorstore.table.records import BATCH
from vectorstore.types import Record


def get(access: TableAccess, ids: list[str]) -> list[Record]:
    """Return the records with these ids, in their order.

    Raises:
        RecordNotFound: one of them does not exist.
    """
    with access.transaction() as table:
        return table.get(ids)


def find(access: TableAccess, ids: list[str]) -> list[Record]:
    """Return the records with those of these ids that exist, in their order."""
    with access.transaction() as table:
        return table.find(ids)


def matching(
    access: TableAccess, condition: Condition, order_by: str | None, descending: bool, limit: int | None
) -> Iterator[Record]:
    """Iterate over the records of a condition; arguments and errors as `VectorStore.records`, errors at once."""
    if order_by is not None:
        make_condition(None, None, {order_by: None})
    most = None if limit is None else positive_int("limit", limit)
    access.table()
    if order_by is None and not descending:
        return islice(pages(access, condition), most)
    return islice(_ordered(access, condition, order_by, descending), most)


def pages(access: TableAccess, condition: Condition) -> Iterator[Record]:
    """Yield the records of a condition in insertion order, read a page at a time, each id once.

    An update moves a record to the end, where the iteration would meet it again.
    """
    last, yielded = 0, array("q")  # hashes of ids, eight bytes each
    known: set[int] | None = None
    with access.transaction() as table:
        newest = table.last()
    while True:
        with access.transaction() as table:
            page = table.page(last, condition)
        if not page:
            return
        for row in page:
            last, key = row[0], hash(row[1])
            if last <= newest:
                yielded.append(key)
            else:
                known = set(yielded) if known is None else known
                if key in known:
                    continue
                known.add(key)
            yield Record(row, access.meta.encoder)


def _ordered(access: TableAccess, condition: Condition, order_by: str | None, descending: bool) -> Iterator[Record]:
    with access.transaction() as table:
        nums = table.nums(condition, order_by=order_by, descending=descending).tolist()
    for start in range(0, len(nums), BATCH):
        with access.transaction() as table:
            rows = {row[0]: row for row in table.fetch(nums[start : start + BATCH])}
        yield from (Record(rows[num], access.meta.encoder) for num in nums[start : start + BATCH] if num in rows)
