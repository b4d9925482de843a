"""Checksums of rows: CRC-32 of what a row says and of its vector, kept beside them.

A disk, a memory or a copy that changes a bit changes a text or a vector into another one that looks as good. CRC-32
finds every change of up to 32 bits in a row, and all but one in four thousand million others; it is no protection
against somebody who wants to deceive, who would change the checksum, too.
"""

from collections.abc import Sequence
from zlib import crc32

from vectorstore.types import Row


def text_checksum(texts: Sequence[str]) -> int:
    """Return the checksum of id, kind, owner, text, created and extra, in this order."""
    return crc32("\0".join(texts).encode())


def bytes_checksum(texts: Sequence[bytes]) -> int:
    """Return the checksum of the same, given as the bytes that SQLite keeps."""
    return crc32(b"\0".join(texts))


def vector_checksum(vector: bytes) -> int:
    """Return the checksum of a vector's bytes."""
    return crc32(vector)


def row_problem(row: Row, dim: int) -> str | None:
    """Return what is wrong with a row as it was read, or None.

    Args:
        row: of any content: SQLite's types promise little.
        dim: width of the store's vectors.
    """
    texts = (*row[1:5], *row[6:8])
    if not all(isinstance(text, str) for text in texts):
        return "has a text of another type"
    if (problem := vector_problem(row[5], row[9], dim)) is not None:
        return problem
    if text_checksum(texts) != row[8]:
        return "is damaged: the checksum of its text does not match"
    return None


def vector_problem(vector: bytes, checksum: int, dim: int) -> str | None:
    """Return what is wrong with a vector as it was read, or None."""
    if not isinstance(vector, bytes):
        return "has a vector of another type"
    if len(vector) != 4 * dim:
        return f"has {len(vector)} vector bytes; expected {4 * dim}"
    if crc32(vector) != checksum:
        return "is damaged: the checksum of its vector does not match"
    return None
