"""Rows that were read lately, kept in memory: rows never change, so what is kept is always right."""

from typing import final

from vectorstore.errors import StoreCorrupt
from vectorstore.table.records import RecordTable
from vectorstore.types import Row

CACHE_BYTES = 64 << 20
_OVERHEAD = 600  # bytes of a tuple and the objects in it, about


@final
class RowCache:
    """The rows of a table by number, the oldest forgotten first."""

    def __init__(self, table: RecordTable) -> None:
        """Begin with none."""
        self._table = table
        self._rows: dict[int, Row] = {}
        self._bytes = 0

    def get(self, nums: list[int]) -> list[Row]:
        """Return the rows of these numbers, in their order; inside a transaction of the table.

        Raises:
            StoreCorrupt: a row is not there.
        """
        rows = self._rows
        try:
            return [rows[num] for num in nums]
        except KeyError:
            missing = [num for num in dict.fromkeys(nums) if num not in rows]
        for row in self._table.fetch(missing):
            rows[row[0]] = row
            self._bytes += _size(row)
        try:
            found = [rows[num] for num in nums]
        except KeyError as error:
            raise StoreCorrupt(
                f"{self._table.file}: row {error} is in the index but not in the table; rebuild() mends the index"
            ) from error
        while self._bytes > CACHE_BYTES:
            self._bytes -= _size(rows.pop(next(iter(rows))))
        return found


def _size(row: Row) -> int:
    return _OVERHEAD + len(row[4]) + len(row[5]) + len(row[7])
