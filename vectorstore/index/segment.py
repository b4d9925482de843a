"""A part of the index: one back end, the row numbers of its positions, and which of them are deleted."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from vectorstore.errors import StoreCorrupt
from vectorstore.index.backends import Backend, Mask

# Up to this many deleted or excluded positions, a search asks for so many more and drops them. That spares the plain
# search a mask, which costs more.
_OVERFETCH = 64
COMPACT_SHARE = 0.2  # of deleted positions, above which a back end that cannot drop them is built anew by `optimize`
NONE = np.empty(0, np.int64)


@final
class Selection:
    """The rows of a condition: their numbers `[m]`, ascending. Deleted ones may be among them.

    Attributes:
        nums: int64 `[m]`.
        seen: the highest row number that was looked at.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.nums = NONE
        self.seen = 0

    def extend(self, nums: NDArray[np.int64], seen: int) -> None:
        """Append the numbers above `seen` so far."""
        if len(nums):
            self.nums = np.concatenate([self.nums, nums])
        self.seen = seen


@final
class Segment:
    """Vectors under ascending row numbers. Deleted ones are hidden at once, and dropped when they are many.

    Attributes:
        backend: finds positions.
        nums: int64 `[len(backend)]`, the row number of each position, ascending.
        dead: int64 `[t]`, the positions of deleted rows (tombstones), ascending.
        last: the highest row number ever added, or `after`.
    """

    def __init__(self, backend: Backend, nums: NDArray[np.int64] = NONE, *, after: int = 0) -> None:
        """Wrap a back end that holds vectors for `nums`, all above `after`.

        Raises:
            StoreCorrupt: the numbers are not as many, or not ascending.
        """
        if len(nums) != len(backend) or (np.diff(nums) <= 0).any():
            raise StoreCorrupt("the row numbers of an index do not fit its vectors")
        self.backend = backend
        self.nums = nums
        self.dead = NONE
        self.last = int(nums[-1]) if len(nums) else after
        self._masks: dict[Selection | None, tuple[int, Mask]] = {}

    @property
    def alive(self) -> int:
        """Number of vectors that are not deleted."""
        return len(self.nums) - len(self.dead)

    def add(self, nums: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Append `rows [n, dim]` under `nums [n]`, ascending and above `last`."""
        self.backend.add(rows)
        self.nums = np.concatenate([self.nums, nums])
        self.last = int(nums[-1])
        self._masks.clear()

    def kill(self, nums: NDArray[np.int64]) -> None:
        """Hide the vectors of those of the row numbers that are here."""
        self._kill_positions(self.positions(nums))

    def keep(self, nums: NDArray[np.int64]) -> None:
        """Hide every vector whose row number is not among `nums`."""
        self._kill_positions(np.flatnonzero(~np.isin(self.nums, nums)))

    def alive_nums(self) -> NDArray[np.int64]:
        """Return the row numbers that are not deleted."""
        return np.delete(self.nums, self.dead)

    def positions(self, nums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of those of the row numbers that are here."""
        if not len(self.nums):
            return NONE
        places = np.minimum(np.searchsorted(self.nums, nums), len(self.nums) - 1)
        return places[self.nums[places] == nums]

    def search(
        self, queries: NDArray[np.float32], k: int, selection: Selection | None, excluded: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the row numbers `[n, c]` of at least the `k` nearest to each of `queries [n, dim]`, -1 for none.

        Args:
            queries: float32, as the back end takes them.
            k: how many.
            selection: only these rows; None for all.
            excluded: not these row numbers.
        """
        hidden = self.positions(excluded) if len(excluded) else NONE
        plain = selection is None and len(self.dead) + len(hidden) <= _OVERFETCH
        if plain:
            mask = None
            hidden = np.concatenate([self.dead, hidden])
            wanted = min(k + len(hidden), len(self.nums))
        else:
            mask = self._mask(selection)
            if len(hidden):
                mask = mask.without(hidden)
            hidden = NONE
            wanted = min(k, mask.count)
        if wanted == 0:
            return np.full((len(queries), 0), -1, np.int64)
        found = self.backend.search(queries, wanted, mask)
        nums = self.nums[found]
        nums[found < 0] = -1
        if len(hidden):
            nums[np.isin(found, hidden)] = -1
        return nums

    def _mask(self, selection: Selection | None) -> Mask:
        # A selection only grows, and its length says how far it has.
        length = -1 if selection is None else len(selection.nums)
        known = self._masks.get(selection)
        if known is not None and known[0] == length:
            return known[1]
        allowed = np.zeros(len(self.nums), np.bool_) if selection else np.ones(len(self.nums), np.bool_)
        if selection is not None:
            allowed[self.positions(selection.nums)] = True
        allowed[self.dead] = False
        mask = Mask.of(allowed)
        self._masks[selection] = (length, mask)
        return mask

    def forget(self, selection: Selection) -> None:
        """Let go of what is kept for a selection that will not be asked for again."""
        self._masks.pop(selection, None)

    def _kill_positions(self, positions: NDArray[np.int64]) -> None:
        dead = np.union1d(self.dead, positions)
        if len(dead) == len(self.dead):
            return
        self._masks.clear()
        alive = np.ones(len(self.nums), np.bool_)
        alive[dead] = False
        if len(dead) > _OVERFETCH and self.backend.keep(alive):
            self.nums, dead = self.nums[alive], NONE
        self.dead = dead
