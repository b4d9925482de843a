"""Sharing work with other processes: each does what nobody has claimed, until all is done."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

POLL_SECONDS = 0.5

T = TypeVar("T")


def share_work(
    cells: Sequence[T],
    *,
    claimed: Callable[[T], AbstractContextManager[bool]],
    is_done: Callable[[T], bool],
    do: Callable[[T], None],
    after: Callable[[T, bool], None],
) -> None:
    """Do every cell that is missing, until none is, whoever did it.

    Args:
        cells: that may be missing, in the order in which to do them.
        claimed: context manager that gives True if this process may work on a cell, see `agents.experiments.cells`.
        is_done: whether what a cell stands for is on the disk.
        do: does a cell.
        after: called with a cell that was looked at, and whether it was done here and now.
    """
    pending = list(cells)
    while pending:
        left = []
        for cell in pending:
            with claimed(cell) as mine:
                # Another process may have done it since we looked.
                ours = mine and not is_done(cell)
                if ours:
                    do(cell)
            after(cell, ours)
            if not ours and not is_done(cell):
                left.append(cell)
        if len(left) == len(pending):
            time.sleep(POLL_SECONDS)  # all that is left is being done by others; if one of them dies, we take over
        pending = left
