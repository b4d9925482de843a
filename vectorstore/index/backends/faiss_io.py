"""What the FAISS back ends share: selectors and files."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectorstore.index.backends.base import Mask


def selector(mask: Mask) -> Any:
    """Return the FAISS selector of a mask; the mask keeps it, and the bits that it points to, alive."""
    import faiss

    if mask.selector is None:
        swig: Any = faiss  # wrapped constructors take arguments that the generated signatures do not show
        mask.selector = swig.IDSelectorBitmap(mask.size, faiss.swig_ptr(mask.bits))
    return mask.selector


def write(index: Any, file: Path, nums: NDArray[np.int64]) -> str:
    """Write `index` as FAISS does, then the row numbers `nums [index.ntotal]`; return the file's SHA-256.

    FAISS reads such a file as it is: it stops where the index ends.

    Raises:
        OSError: the file could not be written.
    """
    import faiss

    try:
        faiss.write_index(index, str(file))
        # FAISS does not report when its last buffer cannot be written; reading the file back does.
        copy = faiss.read_index(str(file), _flags(mmap=not isinstance(index, faiss.IndexIVF)))
    except RuntimeError as error:
        raise OSError(f"{file.name} could not be written ({error}); is the disk full?") from error
    if copy.ntotal != index.ntotal:
        raise OSError(f"{file.name} holds {copy.ntotal} of {index.ntotal} vectors; is the disk full?")
    with file.open("ab") as stream:
        stream.write(nums.astype("<i8").tobytes())
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(file: Path, *, mmap: bool) -> tuple[Any, NDArray[np.int64]]:
    """Return the index of a file and the row numbers `[n]` of its positions.

    With `mmap`, the vectors of a flat or HNSW index stay on the disk.

    Raises:
        RuntimeError: FAISS cannot read it.
        OSError, ValueError: the row numbers are missing.
    """
    import faiss

    index: Any = faiss.read_index(str(file), _flags(mmap=mmap))
    start = file.stat().st_size - 8 * index.ntotal
    return index, np.fromfile(file, "<i8", offset=start).astype(np.int64)


def _flags(*, mmap: bool) -> int:
    import faiss

    return getattr(faiss, "IO_FLAG_MMAP_IFC", 0) if mmap else 0
