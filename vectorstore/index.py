"""The FAISS index of a store: an exact (flat) one, kept in memory and cached in one file.

The cache file is a line of JSON (the stamp: what contents the index is of, and a checksum), then the serialised index.
A file that is missing, stale, cut short or altered is ignored, since the records can always rebuild it. FAISS is
imported when the first index is made.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from vectorstore.types import Metric

logger = logging.getLogger(__name__)


@final
class FlatIndex:
    """Exact nearest neighbours of vectors under integer ids.

    Attributes:
        revision: the revision of the records that it is in step with; "" before the first.
        last: the largest id ever added, 0 if none.
    """

    def __init__(self, dim: int, metric: Metric) -> None:
        """Make an empty index of width `dim`; under cosine, vectors are expected at unit length."""
        import faiss

        flat = faiss.IndexFlatIP(dim) if metric is Metric.COSINE else faiss.IndexFlatL2(dim)
        self._faiss: Any = faiss.IndexIDMap2(flat)
        self._metric = metric
        self.revision = ""
        self.last = 0

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self._faiss.ntotal

    def add(self, nums: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Add `rows [n, dim]` under `nums [n]`, which must be ascending and above `last`."""
        self._faiss.add_with_ids(rows, nums)
        self.last = int(nums[-1])

    def keep(self, nums: NDArray[np.int64]) -> None:
        """Remove every vector whose id is not among `nums [n]`."""
        gone = np.setdiff1d(self.nums(), nums)
        if len(gone):
            self._faiss.remove_ids(gone)

    def nums(self) -> NDArray[np.int64]:
        """Return the ids `[n]`."""
        import faiss

        return faiss.vector_to_array(self._faiss.id_map)

    def rows(self, nums: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors `[n, dim]` of these ids."""
        return self._faiss.reconstruct_batch(nums)

    def search(self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None) -> list[list[int]]:
        """Return for each of `queries [n, dim]` the ids of its `k` nearest, or fewer; `among [m]` limits the ids."""
        import faiss

        k = min(k, len(self) if among is None else len(among))
        if k == 0:
            return [[] for _ in queries]
        swig: Any = faiss  # the wrapped constructors take keywords that the generated signatures do not show
        params = None if among is None else swig.SearchParameters(sel=swig.IDSelectorBatch(among))
        # From some number of queries on, which differs between releases, FAISS expands |x - y|^2 to use a matrix
        # product. That loses the digits that tell near neighbours apart, so under l2 each query goes alone.
        step = 1 if self._metric is Metric.L2 else max(len(queries), 1)
        found: list[list[int]] = []
        for start in range(0, len(queries), step):
            _, nums = self._faiss.search(queries[start : start + step], k, params=params)
            found.extend([num for num in row if num != -1] for row in nums.tolist())
        return found

    def save(self, file: Path, stamp: dict[str, Any]) -> None:
        """Replace the cache file in one step.

        Raises:
            OSError: the file could not be written; an older one is still whole.
        """
        import faiss

        payload = faiss.serialize_index(self._faiss).tobytes()
        header = json.dumps({**stamp, "sha256": hashlib.sha256(payload).hexdigest()}).encode()
        part = file.with_name(file.name + ".part")
        try:
            part.write_bytes(header + b"\n" + payload)
            os.replace(part, file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, file: Path, stamp: dict[str, Any], dim: int, metric: Metric) -> Self | None:
        """Return the cached index, or None if there is none with this stamp, whole and readable."""
        import faiss

        try:
            header, _, payload = file.read_bytes().partition(b"\n")
            found = json.loads(header)
            if not isinstance(found, dict):
                raise ValueError("its first line is not a JSON object")
            checksum = found.pop("sha256", None)
            if found != stamp:
                logger.info("%s is not of the present records; rebuilding it from them", file)
                return None
            if checksum != hashlib.sha256(payload).hexdigest():
                raise ValueError("its checksum does not match")
            inner = faiss.deserialize_index(np.frombuffer(payload, np.uint8))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: another version of FAISS may not read it
            logger.warning("%s cannot be used (%s); rebuilding it from the records", file, error)
            return None
        index = cls(dim, metric)
        index._faiss = inner
        index.revision = stamp["revision"]
        index.last = int(index.nums().max(initial=0))
        return index
