"""One size of run over an arena: buffers on the device, bound once, that every run of this size goes through.

Axes: B members, T steps of the bucket; a run with fewer fills it up.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.graph import graph_outputs
from carousel.wire.frames import NUMPY
from service.arena_store import ArenaStore, allocate
from service.backend import Run
from service.rows import INITIAL_ROW, Rows
from service.runtime import load_runtime

if TYPE_CHECKING:
    import onnxruntime

UNCAPTURED = "-1"
"""The number of a CUDA graph that says: run without one."""
ALIGNED = 256
"""Bytes: where a kernel expects what it reads or writes to begin."""
Array = NDArray[Any]


class Bucket:
    """Buffers for runs of B members and T steps, and the binding of a session to them.

    What goes to the device and comes back goes in few copies, each of which is a wait: one for each input of the
    contract, one for the numbers of all rows, one for all that is answered.

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
        self._session, self._contract, self._store, self._arena = session, contract, store, contract.arena
        self._binding = session.io_binding()
        self._places = _places(session, store.device)
        self._host: dict[str, Array] = {}
        self._buffers: dict[str, onnxruntime.OrtValue] = {}
        self._graph = load_runtime().RunOptions()
        self._graph.add_run_config_entry("gpu_graph_id", UNCAPTURED)
        for port in contract.inputs:
            self._bind_input(port.name, np.zeros((batch, steps, *port.shape), NUMPY[port.dtype]))
        self._bind_input(contract.lengths, np.ones(batch, np.int32))
        self._rows = np.stack([np.full(batch, INITIAL_ROW), store.scratch[:batch]])
        self._rows_there = self._bind_rows()
        plane = contract.planes[0]
        self._binding.bind_ortvalue_input(plane.input, store.arena)
        self._binding.bind_ortvalue_output(plane.output, store.arena)
        self._answers: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        self._answers_there = self._bind_answers()

    def run(self, run: Run, read_rows: Rows) -> dict[str, Array]:
        """Run a batch that fits.

        Args:
            run: The batch; which rows it reads is not taken from it,
            read_rows: but from here: `[B]`, all of them in the arena.

        Returns:
            Every output but the arena by name, of the members and steps of the batch: the caller's to keep.
        """
        batch, steps = run.inputs[0].shape[:2]
        for port, array in zip(self._contract.inputs, run.inputs, strict=True):
            self._fill(port.name, array)
        if self.steps > 1:  # else all of them are 1 for ever
            self._fill(self._contract.lengths, run.lengths, 1)
        self._run(read_rows, run.write_rows)
        answered = self._answers_there.numpy()
        ports = {port.name for port in self._contract.outputs}
        return {
            name: self._own(answered, name, (slice(batch), slice(steps))[: 1 + (name in ports)])
            for name in self._answers
        }

    def idle(self) -> None:
        """Run with members that only fill up: whatever is read or written then belongs to no session."""
        self._run(np.empty(0, np.int64), np.empty(0, np.int64))

    def capture(self, number: int) -> None:
        """Record a CUDA graph, in the thread that will replay it: the runtime keeps them by thread.

        The runtime runs the model more than once to do so, on scratch rows here. It holds the lengths in host memory
        and would replay those of the recording: only runs of one step, whose lengths never change, can be captured.
        """
        assert self.steps == 1
        self._graph = load_runtime().RunOptions()
        self._graph.add_run_config_entry("gpu_graph_id", str(number))
        self.idle()

    def _run(self, read_rows: Rows, write_rows: Rows) -> None:
        count = len(read_rows)
        self._rows[0, :count], self._rows[0, count:] = read_rows, INITIAL_ROW
        self._rows[1, :count], self._rows[1, count:] = write_rows, self._store.scratch[count : self.batch]
        self._rows_there.update_inplace(self._rows)
        self._session.run_with_iobinding(self._binding, self._graph)

    def _own(self, answered: Array, name: str, part: tuple[slice, ...]) -> Array:
        start, dtype, shape = self._answers[name]
        own = np.ndarray(shape, dtype, answered.data, start)[part]
        # On the CPU it is the buffer itself; and a small part would keep all answers alive.
        return own.copy() if self._store.device == "cpu" or 2 * own.nbytes < len(answered) else own

    def _bind_input(self, name: str, host: Array) -> None:
        buffer = allocate(host.shape, host.dtype, self._places[name])
        buffer.update_inplace(host)
        self._host[name], self._buffers[name] = host, buffer
        self._binding.bind_ortvalue_input(name, buffer)

    def _bind_rows(self) -> "onnxruntime.OrtValue":
        """Both lists of rows as one buffer."""
        there = allocate(self._rows.shape, self._rows.dtype, self._store.device)
        for k, name in enumerate((self._arena.read_rows, self._arena.write_rows)):
            start = there.data_ptr() + k * self._rows[0].nbytes
            self._binding.bind_input(name, self._store.device, 0, np.int64, (self.batch,), start)
        return there

    def _bind_answers(self) -> "onnxruntime.OrtValue":
        """All outputs but the arena as one buffer of bytes."""
        sizes, size = {"B": self.batch, "T": self.steps}, 0
        for name, tensor in graph_outputs(self._contract).items():
            if name != self._contract.planes[0].output:
                shape = tuple(one if isinstance(one, int) else sizes[one] for one in tensor.shape)
                dtype = np.dtype(tensor.dtype)
                self._answers[name] = size, dtype, shape
                size += -(-int(np.prod(shape)) * dtype.itemsize // ALIGNED) * ALIGNED
        there = allocate((size,), np.dtype(np.uint8), self._store.device)
        for name, (start, dtype, shape) in self._answers.items():
            address = there.data_ptr() + start
            self._binding.bind_output(name, self._store.device, 0, dtype.type, shape, address)
        return there

    def _fill(self, name: str, array: Array, rest: int | None = None) -> None:
        """Copy what came into its buffer, and into the rest of the members what is given; else it is what it was."""
        host = self._host[name]
        if array.shape != host.shape:
            host[tuple(slice(size) for size in array.shape)] = array
            if rest is not None:
                host[len(array) :] = rest
            array = host
        self._buffers[name].update_inplace(array)


def _places(session: "onnxruntime.InferenceSession", device: str) -> dict[str, str]:
    """The memory that each input belongs to: some kernels of CUDA want the lengths on the host."""
    ports = session.get_inputs()
    if device == "cpu":
        return dict.fromkeys((port.name for port in ports), device)
    return {
        port.name: device
        if memory.name.lower() == device  # of the host's, some are called CudaPinned and CUDA_CPU
        else "cpu"
        for port, memory in zip(ports, session.get_input_memory_infos(), strict=True)
    }
