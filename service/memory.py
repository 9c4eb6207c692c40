"""The read-only planes of sessions, such as what a decoder attends to: written once, when a session opens.

A row is gathered by every run and never scattered, so copies of a session share theirs, and versions over the same rows
do, too. It stays in memory until the last of its sessions has ended, wherever their states are.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Plane
from carousel.wire.frames import NUMPY
from service.rows import RowAllocator, Rows

NO_MEMORY = 0
"""The row of zeros that nobody owns."""

Planes = tuple[NDArray[np.generic], ...]


class Memory:
    """What the rows hold, and who owns them. The contents are for the thread that owns rows, the rest for the loop.

    Args:
        planes: Those of the contract that are read-only.
        sessions: How many there can be.

    Raises:
        MemoryError: there is no room for so many.
    """

    def __init__(self, planes: Sequence[Plane], sessions: int) -> None:
        rows = 1 + sessions + 1  # a session that is put back has its new row before it leaves the old one
        self._owned = RowAllocator(rows)
        self._sharers = np.zeros(rows, np.int32)
        self._inputs = [plane.input for plane in planes]
        # Pages of zeros cost nothing until a session writes to them.
        self._rows = [np.zeros((rows, plane.size), NUMPY[plane.dtype]) for plane in planes]
        self.row_bytes = sum(array[0].nbytes for array in self._rows)

    @property
    def used(self) -> int:
        """Rows that sessions own."""
        return self._owned.used

    def take(self, sharers: NDArray[np.int64]) -> Rows:
        """Rows that nobody else owns, each for so many sessions."""
        rows = self._owned.take(len(sharers))
        self._sharers[rows] = sharers
        return rows

    def share(self, row: int, sessions: int) -> None:
        """So many sessions more have this row."""
        self._sharers[row] += sessions

    def give(self, row: int, sessions: int = 1) -> None:
        """So many sessions have it no longer."""
        self._sharers[row] -= sessions
        if not self._sharers[row]:
            self._owned.give(np.array([row]))

    def read(self, rows: Rows) -> Planes:
        """The planes of some rows, `[n, size]` each."""
        return tuple(array.take(rows, axis=0) for array in self._rows)

    def feeds(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        """The same by the names of the graph's inputs."""
        return dict(zip(self._inputs, self.read(rows), strict=True))

    def write(self, rows: Rows, planes: Planes) -> None:
        """Put planes `[n, size]` into rows that nobody reads yet."""
        for array, values in zip(self._rows, planes, strict=True):
            array[rows] = values
