"""Rows read from the pages of a SQLite file, without SQLite: what is left where its trees lead nowhere any more.

A table lies in leaf pages, which hold its rows, below pages that only lead to them. Where one of those is damaged, or
the list of tables is, SQLite finds none of the rows below; but each leaf can be read by itself (see "Database File
Format" on sqlite.org). Nothing that is read is trusted: whoever asks compares checksums.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

_TABLE_LEAF, _INDEX_LEAF = 0x0D, 0x0A
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes by serial type


def table_rows(file: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number and the columns of every row of every table that can be read, in no order.

    Raises:
        OSError: the file cannot be read.
    """
    pages = _Pages(file.read_bytes())
    for page in pages.used():
        yield from pages.cells(page, _TABLE_LEAF)


def keyed_rows(file: Path) -> Iterator[list[Any]]:
    """Yield the columns of every row that can be read of tables without row numbers, and of indices, in no order.

    Raises:
        OSError: the file cannot be read.
    """
    pages = _Pages(file.read_bytes())
    for page in pages.used():
        yield from (columns for _, columns in pages.cells(page, _INDEX_LEAF))


@final
class _Pages:
    """The pages of a file, numbered from 1."""

    def __init__(self, data: bytes) -> None:
        size = int.from_bytes(data[16:18], "big")
        size = 65_536 if size == 1 else size
        if size < 512 or size & (size - 1):  # the header is damaged, so it is taken to be what SQLite makes
            size = 4096
        self._data = memoryview(data)
        self._size = size
        self._usable = size - (data[20] if len(data) > 20 and data[20] <= size - 480 else 0)
        self._count = len(data) // size

    def _page(self, number: int) -> memoryview:
        if not 1 <= number <= self._count:
            raise ValueError("no such page")
        return self._data[(number - 1) * self._size : number * self._size]

    def used(self) -> Iterator[int]:
        """Yield the numbers of the pages that are not in the list of free ones, whose rows were deleted."""
        free: set[int] = set()
        trunk = int.from_bytes(self._data[32:36], "big")
        while 1 <= trunk <= self._count and trunk not in free:
            free.add(trunk)
            page = self._page(trunk)
            leaves = min(int.from_bytes(page[4:8], "big"), self._usable // 4 - 2)
            free.update(int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(leaves))
            trunk = int.from_bytes(page[:4], "big")
        return (number for number in range(1, self._count + 1) if number not in free)

    def cells(self, number: int, kind: int) -> Iterator[tuple[int, list[Any]]]:
        """Yield the row number (0 in an index) and the columns of each cell of a leaf of one kind."""
        page = self._page(number)
        start = 100 if number == 1 else 0
        if page[start] != kind:
            return
        for i in range(min(int.from_bytes(page[start + 3 : start + 5], "big"), self._size // 4)):
            at = int.from_bytes(page[start + 8 + 2 * i : start + 10 + 2 * i], "big")
            try:
                length, at = _varint(page, at)
                rowid, at = _varint(page, at) if kind == _TABLE_LEAF else (0, at)
                yield rowid, _columns(self._payload(page, at, length, kind))
            except (ValueError, IndexError):
                continue  # no whole cell

    def _payload(self, page: memoryview, at: int, length: int, kind: int) -> bytes:
        usable = self._usable
        most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return self._part(page, at, length)
        if length > len(self._data):
            raise ValueError("longer than the file")
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= most else least
        parts, left = [self._part(page, at, local)], length - local
        following = int.from_bytes(self._part(page, at + local, 4), "big")
        while left > 0:
            rest = self._page(following)
            parts.append(self._part(rest, 4, min(left, usable - 4)))
            left -= len(parts[-1])
            following = int.from_bytes(rest[:4], "big")
        return b"".join(parts)

    def _part(self, page: memoryview, start: int, length: int) -> bytes:
        part = bytes(page[start : start + length])
        if len(part) != length:
            raise ValueError("it reaches over the end of its page")
        return part


def _varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, as SQLite writes them, and where what follows begins."""
    value = 0
    for i in range(8):
        value = value << 7 | data[at + i] & 0x7F
        if data[at + i] < 0x80:
            return value, at + i + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64 if value >= 1 << 63 else 0), at + 9


def _columns(payload: bytes) -> list[Any]:
    """The values of a record: integers, texts and bytes; None for NULL and for fractions, which no store has."""
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    columns: list[Any] = []
    for kind in kinds:
        size = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        part, at = payload[at : at + size], at + size
        if size < 0 or len(part) != size:
            raise ValueError("it reaches over the end of its record")
        if kind in _INTEGERS:
            columns.append(int.from_bytes(part, "big", signed=True))
        elif kind in (8, 9):
            columns.append(kind - 8)
        elif kind >= 12:
            columns.append(part.decode() if kind % 2 else part)
        else:
            columns.append(None)
    return columns
