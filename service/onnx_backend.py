"""Runs step graphs in the rows form with ONNX Runtime: gather, run, check, scatter."""

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.backend import Result, Run
from service.rows import INITIAL_ROW

if TYPE_CHECKING:
    import onnxruntime


class OnnxBackend:
    """State rows in host memory around one `InferenceSession`.

    Gathering and scattering with NumPy costs as much as doing it inside the graph on the CPU provider, and keeps
    rows out of reach of a failing run.
    """

    def __init__(self, session: "onnxruntime.InferenceSession", contract: Contract, rows: int) -> None:
        self._session = session
        self._contract = contract
        plane = contract.planes[0]
        self._state_input, state_output = plane.input, plane.output
        self._fetches = [*(port.name for port in contract.outputs), state_output]
        # Pages of zeros cost nothing until a session writes to them.
        self._rows: NDArray[np.generic] = np.zeros((rows, plane.size), NUMPY[plane.dtype])
        if contract.initial is not None:
            self._rows[INITIAL_ROW] = contract.initial

    def run(self, run: Run) -> Result:
        """Advance every session of the batch; see `Backend.run`."""
        (*outputs, states), seconds = self._call(run)
        self._check_shapes(run, outputs, states)
        finite = np.isfinite(states).all(axis=1)
        if finite.all():
            self._rows[run.write_rows] = states
        else:
            self._rows[run.write_rows[finite]] = states[finite]
        return Result(tuple(outputs), finite, seconds)

    def warm_up(self, batch_chunks: int) -> None:
        """Run every power of two up to the largest batch on the initial row, and throw the results away."""
        sizes = [1 << power for power in range(batch_chunks.bit_length())]
        for size, steps in [(size, 1) for size in sizes] + [(1, 2)]:
            inputs = tuple(np.zeros((size, steps, *p.shape), NUMPY[p.dtype]) for p in self._contract.inputs)
            rows = np.full(size, INITIAL_ROW)
            run = Run(rows, rows, np.full(size, steps, np.int32), inputs)
            (*outputs, states), _ = self._call(run)
            self._check_shapes(run, outputs, states)

    def _check_shapes(
        self, run: Run, outputs: list[NDArray[np.generic]], states: NDArray[np.generic]
    ) -> None:
        """Hold what came out against the contract: other shapes would misplace answers, and a graph does not tell."""
        sizes = (len(run.lengths), run.inputs[0].shape[1])
        expected = [(*sizes, *port.shape) for port in self._contract.outputs]
        expected.append((sizes[0], self._contract.state_size))
        for name, shape, array in zip(self._fetches, expected, (*outputs, states), strict=True):
            if array.shape != shape:
                raise ValueError(f"{name}: expected {list(shape)}, got {list(array.shape)}")

    def _call(self, run: Run) -> tuple[list[NDArray[np.generic]], float]:
        feeds = {port.name: array for port, array in zip(self._contract.inputs, run.inputs, strict=True)}
        feeds[self._contract.lengths] = run.lengths
        feeds[self._state_input] = self._rows.take(run.read_rows, axis=0)
        started = time.perf_counter()
        fetched = self._session.run(self._fetches, feeds)
        return fetched, time.perf_counter() - started
