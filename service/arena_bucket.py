"""One size of run over an arena: buffers on the device, bound once, that every run of this size goes through.

Axes: B members, T steps of the bucket; a run with fewer fills it up.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.arena_store import ArenaStore, allocate
from service.backend import Run
from service.rows import INITIAL_ROW, Rows
from service.runtime import load_runtime

if TYPE_CHECKING:
    import onnxruntime

UNCAPTURED = "-1"
"""The number of a CUDA graph that says: run without one."""
Array = NDArray[Any]


class Bucket:
    """Buffers for runs of B members and T steps, and the binding of a session to them.

    Members that only fill up read the initial row, take one step and write a scratch row each.

    Args:
        session: Of a model in the arena form.
        contract: Its contract.
        store: The rows.
        batch: B.
        steps: T.
    """

    def __init__(
        self,
        session: "onnxruntime.InferenceSession",
        contract: Contract,
        store: ArenaStore,
        batch: int,
        steps: int,
    ) -> None:
        assert contract.arena is not None
        self.batch, self.steps = batch, steps
        self._session, self._contract, self._store = session, contract, store
        self._binding = session.io_binding()
        self._places = _places(session, store.device)
        self._host: dict[str, Array] = {}
        self._buffers: dict[str, onnxruntime.OrtValue] = {}
        self._graph = load_runtime().RunOptions()
        self._graph.add_run_config_entry("gpu_graph_id", UNCAPTURED)
        for port in contract.inputs:
            self._bind_input(port.name, np.zeros((batch, steps, *port.shape), NUMPY[port.dtype]))
        self._bind_input(contract.lengths, np.ones(batch, np.int32))
        self._bind_input(contract.arena.read_rows, np.full(batch, INITIAL_ROW))
        self._bind_input(contract.arena.write_rows, store.scratch[:batch].copy())
        plane = contract.planes[0]
        self._binding.bind_ortvalue_input(plane.input, store.arena)
        self._binding.bind_ortvalue_output(plane.output, store.arena)
        for port in contract.outputs:
            self._bind_output(port.name, (batch, steps, *port.shape), NUMPY[port.dtype])
        if contract.observed is not None:
            shape = (batch, len(contract.observed.statistics))
            self._bind_output(contract.observed.output, shape, np.dtype(np.float32))
        self._finiteness = store.finiteness(self._buffers[contract.arena.write_rows], batch)

    def run(self, run: Run, read_rows: Rows) -> NDArray[np.bool_] | None:
        """Run a batch that fits.

        Args:
            run: The batch; which rows it reads is not taken from it,
            read_rows: but from here: `[B]`, all of them in the arena.

        Returns:
            `[B]`: whether the new states are finite; None: all are.
        """
        arena = self._contract.arena
        assert arena is not None
        for port, array in zip(self._contract.inputs, run.inputs, strict=True):
            self._fill(port.name, array)
        if self.steps > 1:  # else all of them are 1 for ever
            self._fill(self._contract.lengths, run.lengths, 1)
        self._fill(arena.read_rows, read_rows, INITIAL_ROW)
        self._fill(arena.write_rows, run.write_rows, self._store.scratch[len(read_rows) : self.batch])
        self._session.run_with_iobinding(self._binding, self._graph)
        return None if self._finiteness is None else self._finiteness.of_first(len(read_rows))

    def idle(self) -> None:
        """Run with members that only fill up: whatever is read or written then belongs to no session."""
        arena = self._contract.arena
        assert arena is not None
        self._host[arena.read_rows][:] = INITIAL_ROW
        self._host[arena.write_rows][:] = self._store.scratch[: self.batch]
        for name in (arena.read_rows, arena.write_rows):
            self._buffers[name].update_inplace(self._host[name])
        self._session.run_with_iobinding(self._binding, self._graph)
        if self._finiteness is not None:
            self._finiteness.of_first(self.batch)

    def capture(self, number: int) -> None:
        """Record a CUDA graph, in the thread that will replay it: the runtime keeps them by thread.

        The runtime runs the model more than once to do so, on scratch rows here. It holds the lengths in host memory
        and would replay those of the recording: only runs of one step, whose lengths never change, can be captured.
        """
        assert self.steps == 1
        self._graph = load_runtime().RunOptions()
        self._graph.add_run_config_entry("gpu_graph_id", str(number))
        self.idle()

    def output(self, name: str, batch: int, steps: int | None = None) -> Array:
        """An output of the last run, `[batch, steps, ...]`, or `[batch, ...]` of one without steps; the caller's to keep."""
        whole: Array = self._buffers[name].numpy()
        part = whole[:batch] if steps is None else whole[:batch, :steps]
        # On the CPU it is the buffer itself; and a part would keep the whole alive.
        return part.copy() if self._store.device == "cpu" or part.size < whole.size else part

    def _bind_input(self, name: str, host: Array) -> None:
        buffer = allocate(host.shape, host.dtype, self._places[name])
        buffer.update_inplace(host)
        self._host[name], self._buffers[name] = host, buffer
        self._binding.bind_ortvalue_input(name, buffer)

    def _bind_output(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._buffers[name] = allocate(shape, dtype, self._places[name])
        self._binding.bind_ortvalue_output(name, self._buffers[name])

    def _fill(self, name: str, array: Array, rest: Array | int | None = None) -> None:
        """Copy what came into its buffer, and into the rest of the members what is given; else it is what it was."""
        host = self._host[name]
        if array.shape != host.shape:
            host[tuple(slice(size) for size in array.shape)] = array
            if rest is not None:
                host[len(array) :] = rest
            array = host
        self._buffers[name].update_inplace(array)


def _places(session: "onnxruntime.InferenceSession", device: str) -> dict[str, str]:
    """The memory that each input and output belongs to: some kernels of CUDA want the lengths on the host."""
    ports = [*session.get_inputs(), *session.get_outputs()]
    if device == "cpu":
        return dict.fromkeys((port.name for port in ports), device)
    memories = [*session.get_input_memory_infos(), *session.get_output_memory_infos()]
    return {
        port.name: device
        if memory.name.lower() == device  # of the host's, some are called CudaPinned and CUDA_CPU
        else "cpu"
        for port, memory in zip(ports, memories, strict=True)
    }
