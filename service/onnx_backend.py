"""Runs step graphs in the rows form with ONNX Runtime: gather, run, check, scatter."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.backend import Result, Run
from service.denormals import Denormals
from service.finite import all_finite
from service.memory import NO_MEMORY
from service.row_store import RowStore
from service.rows import INITIAL_ROW

if TYPE_CHECKING:
    import onnxruntime


Array = NDArray[Any]


class OnnxBackend:
    """One `InferenceSession` over state rows in host memory.

    Gathering and scattering with NumPy costs as much as doing it inside the graph on the CPU provider, and keeps
    rows out of reach of a failing run.
    """

    def __init__(self, session: "onnxruntime.InferenceSession", contract: Contract, store: RowStore) -> None:
        self._session = session
        self._denormals = Denormals()
        self._contract = contract
        self._store = store
        self._state_input, state_output = contract.planes[0].input, contract.planes[0].output
        self._fetches = [*(port.name for port in contract.outputs), state_output]
        if contract.observed is not None:
            self._fetches.append(contract.observed.output)
        # Versions over one store may begin differently, so this row is the model's and not the store's.
        dtype = NUMPY[contract.planes[0].dtype]
        self._initial = None if contract.initial is None else np.array(contract.initial, dtype)

    def run(self, run: Run) -> Result:
        """Advance every session of the batch; see `Backend.run`."""
        outputs, states, observed, seconds = self._call(run)
        if all_finite(states):
            finite = None
            self._store.write(run.write_rows, states)
        else:
            finite = np.asarray(np.isfinite(states).all(axis=1))
            self._store.write(run.write_rows[finite], states[finite])
        return Result(tuple(outputs), finite, seconds, observed)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        """The states of some rows; see `Backend.read`."""
        states = self._store.read(rows)
        if self._initial is not None and np.count_nonzero(rows) < len(rows):
            states[rows == INITIAL_ROW] = self._initial
        return states

    def write(self, rows: NDArray[np.int64], states: NDArray[np.generic]) -> None:
        """Put states into rows; see `Backend.write`."""
        self._store.write(rows, states)

    def spill(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Copy rows to the spill file; see `Backend.spill`."""
        self._store.spill(rows, places)

    def close(self) -> None:
        """Free the model; see `Backend.close`."""
        del self._session, self._store

    def warm_up(self, batch_chunks: int) -> None:
        """Run every power of two up to the largest batch on the initial row, and throw the results away."""
        sizes = [1 << power for power in range(batch_chunks.bit_length())]
        for size, steps in [(size, 1) for size in sizes] + [(1, 2)]:
            inputs = tuple(np.zeros((size, steps, *p.shape), NUMPY[p.dtype]) for p in self._contract.inputs)
            rows = np.full(size, INITIAL_ROW)
            run = Run(rows, rows, np.full(size, steps, np.int32), inputs, np.full(size, NO_MEMORY))
            self._call(run)  # looks at the shapes, too

    def _check_shapes(
        self, run: Run, outputs: list[NDArray[np.generic]], states: NDArray[np.generic]
    ) -> None:
        """Hold what came out against the contract: other shapes would misplace answers, and a graph does not tell."""
        sizes = run.inputs[0].shape[:2]
        for port, array in zip(self._contract.outputs, outputs, strict=True):
            if array.shape != (*sizes, *port.shape):
                raise ValueError(f"{port.name}: expected {[*sizes, *port.shape]}, got {list(array.shape)}")
        if states.shape != (sizes[0], self._contract.state_size):
            raise ValueError(
                f"state: expected {[sizes[0], self._contract.state_size]}, got {list(states.shape)}"
            )

    def _call(self, run: Run) -> tuple[list[Array], Array, Array | None, float]:
        """Outputs, states, what is observed, and seconds in the runtime."""
        feeds = {port.name: array for port, array in zip(self._contract.inputs, run.inputs, strict=True)}
        feeds[self._contract.lengths] = run.lengths
        feeds[self._state_input] = self.read(run.read_rows)
        if run.memory_rows is not None and self._store.memory is not None:
            feeds |= self._store.memory.feeds(run.memory_rows)
        started = time.perf_counter()
        with self._denormals.as_zero():
            fetched = self._session.run(self._fetches, feeds)
        seconds = time.perf_counter() - started
        observed = fetched.pop() if self._contract.observed is not None else None
        *outputs, states = fetched
        self._check_shapes(run, outputs, states)
        return outputs, states, observed, seconds
