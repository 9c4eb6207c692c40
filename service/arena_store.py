"""The state rows of sessions in the memory of the device, for models of the arena form; and those in the spill file.

Rows leave the device for a snapshot, a fork, the spill file or a drain, many in one copy, and for nothing else.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.arena_graphs import ARENA, ARENA_OUT, ROWS, STATES, gather_graph, scatter_graph
from service.rows import INITIAL_ROW, RowAllocator, Rows
from service.runtime import Provider, load_runtime, make_session

if TYPE_CHECKING:
    import onnxruntime

    from service.spill import SpillFile


class ArenaStore:
    """What rows hold, and who owns them; the counterpart of `RowStore`.

    Args:
        contract: Of any of the models over these rows.
        rows: How many sessions can own, the initial row included.
        scratch: Rows that no session owns, as many as a batch can have members. The members that only fill up a batch
            write there, each to its own: what ScatterND does with a row that is written twice is not defined.
        provider: Where the rows are.
        spill_file: Where idle rows go.

    Raises:
        MemoryError: there is no room for so many.
        OSError: the spill file cannot be made.
    """

    def __init__(
        self,
        contract: Contract,
        rows: int,
        scratch: int,
        provider: Provider,
        spill_file: "SpillFile | None" = None,
    ) -> None:
        plane = contract.planes[0]
        self.owned = RowAllocator(rows)
        self.spill_file = spill_file
        self.device: str = provider
        self.scratch = np.arange(rows, rows + scratch)
        self._size, self._dtype = plane.size, NUMPY[plane.dtype]
        self.arena = allocate((rows + scratch, plane.size), self._dtype, self.device)
        self._gather = make_session(gather_graph(plane.dtype, plane.size), provider, 1)
        self._scatter = make_session(scatter_graph(plane.dtype, plane.size), provider, 1)
        self._item = np.dtype((np.void, self._dtype.itemsize * plane.size))
        self._spilled: NDArray[Any] | None = None if spill_file is None else spill_file.open(self._item)
        # Only this row is read before it is written: by sessions that have made no step, and to fill up batches.
        self.write(np.array([INITIAL_ROW]), np.zeros((1, plane.size), self._dtype))

    def read(self, rows: Rows) -> NDArray[Any]:
        """The states of some rows, `[n, S]`; a row below 0 is in the spill file. The initial row reads as zeros."""
        states = self._copy_of(np.maximum(rows, INITIAL_ROW))
        if self._spilled is not None and np.count_nonzero(rows < INITIAL_ROW):
            away = rows < INITIAL_ROW
            self._items(states)[away] = self._spilled[-1 - rows[away]]
        return states

    def write(self, rows: Rows, states: NDArray[Any]) -> None:
        """Put states `[n, S]` into rows that nobody else owns."""
        if not len(rows):
            return
        binding = self._scatter.io_binding()
        binding.bind_ortvalue_input(ARENA, self.arena)
        binding.bind_cpu_input(ROWS, np.ascontiguousarray(rows).reshape(-1, 1))
        binding.bind_cpu_input(STATES, np.ascontiguousarray(states))
        binding.bind_ortvalue_output(ARENA_OUT, self.arena)
        self._scatter.run_with_iobinding(binding)

    def spill(self, rows: Rows, places: Rows) -> None:
        """Copy rows to the spill file."""
        assert self._spilled is not None
        assert self.spill_file is not None
        self.spill_file.reserve(places)
        self._spilled[places] = self._items(self._copy_of(rows))

    def _copy_of(self, rows: Rows) -> NDArray[Any]:
        binding = self._gather.io_binding()
        binding.bind_ortvalue_input(ARENA, self.arena)
        binding.bind_cpu_input(ROWS, np.ascontiguousarray(rows))
        states: NDArray[Any] = np.empty((len(rows), self._size), self._dtype)
        binding.bind_ortvalue_output(STATES, load_runtime().OrtValue.ortvalue_from_numpy(states))
        self._gather.run_with_iobinding(binding)  # writes into the array itself
        return states

    def _items(self, states: NDArray[Any]) -> NDArray[Any]:
        """States `[n, S]` as `[n]` items of bytes, as the spill file has them."""
        return states.view(self._item).reshape(-1)


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any], device: str) -> "onnxruntime.OrtValue":
    """Memory on the device, of undefined content.

    Raises:
        MemoryError: there is not as much.
    """
    try:
        return load_runtime().OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, device, 0)
    except RuntimeError as error:  # all that the runtime says of a full device
        raise MemoryError(" ".join(str(error).split())) from error
