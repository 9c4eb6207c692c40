"""The state rows of sessions in host memory, and those in the spill file, without the model that steps them.

Models of equal signature stand over one store: a session goes from one version to the next and its row stays where it is.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.memory import Memory
from service.rows import RowAllocator, Rows

if TYPE_CHECKING:
    from service.spill import SpillFile


class RowStore:
    """What rows hold, and who owns them. The contents are for the thread that owns rows, the ownership for the loop.

    Args:
        contract: Of any of the models.
        rows: How many there are, the initial row included.
        spill_file: Where idle rows go.
        memory: The read-only planes beside them, for models that have such.

    Raises:
        MemoryError: there is no room for so many.
        OSError: the spill file cannot be made.
    """

    def __init__(
        self,
        contract: Contract,
        rows: int,
        spill_file: "SpillFile | None" = None,
        memory: Memory | None = None,
    ) -> None:
        plane = contract.planes[0]
        self.owned = RowAllocator(rows)
        self.memory = memory
        self.spill_file = spill_file
        # Pages of zeros cost nothing until a session writes to them.
        self._rows: NDArray[np.generic] = np.zeros((rows, plane.size), NUMPY[plane.dtype])
        # As items of bytes: NumPy copies one item faster than many numbers.
        self._items = self._rows.view(np.dtype((np.void, self._rows.itemsize * plane.size))).reshape(-1)
        self._spilled: NDArray[Any] | None = (
            None if spill_file is None else spill_file.open(self._items.dtype)
        )

    def read(self, rows: Rows) -> NDArray[np.generic]:
        """The states of some rows, `[n, S]`; a row below 0 is in the spill file. The initial row reads as zeros."""
        if self._spilled is None or not np.count_nonzero(rows < 0):
            return self._rows.take(rows, axis=0)
        states = self._rows.take(np.maximum(rows, 0), axis=0)
        away = rows < 0
        states.view(self._items.dtype).reshape(-1)[away] = self._spilled[-1 - rows[away]]
        return states

    def write(self, rows: Rows, states: NDArray[np.generic]) -> None:
        """Put states `[n, S]` into rows that nobody else owns."""
        self._items[rows] = np.ascontiguousarray(states).view(self._items.dtype).reshape(-1)

    def spill(self, rows: Rows, places: Rows) -> None:
        """Copy rows to the spill file."""
        assert self._spilled is not None
        assert self.spill_file is not None
        self.spill_file.reserve(places)
        self._spilled[places] = self._items[rows]
