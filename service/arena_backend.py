"""Runs step graphs in the arena form with ONNX Runtime: rows are gathered and scattered inside the graph.

For CUDA, where the states never leave the device; on the CPU provider it does the same in host memory.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.arena_bucket import Bucket
from service.arena_store import ArenaStore
from service.backend import Result, Run
from service.denormals import Denormals
from service.rows import INITIAL_ROW, Rows

if TYPE_CHECKING:
    import onnxruntime


class ArenaBackend:
    """One `InferenceSession` over an arena, bound to buffers for each power of two of members and of steps.

    A run writes before anybody looks at what it wrote. That is harmless: it writes rows that no session has as its
    current one, and when it failed, or a state is not finite, they do not become it.
    """

    def __init__(
        self, session: "onnxruntime.InferenceSession", contract: Contract, store: ArenaStore
    ) -> None:
        self._session = session
        self._contract = contract
        self._store = store
        self._denormals = Denormals()
        self._buckets: dict[tuple[int, int], Bucket] = {}
        dtype = NUMPY[contract.planes[0].dtype]
        # The arena's initial row is zeros and of all versions; a version that begins with others has them here.
        self._initial = None if contract.initial is None else np.array(contract.initial, dtype)

    def run(self, run: Run) -> Result:
        """Advance every session of the batch; see `Backend.run`."""
        batch, steps = run.inputs[0].shape[:2]
        read_rows = self._bring_in(run)
        bucket = self._bucket(batch, steps)
        started = time.perf_counter()
        with self._denormals.as_zero():
            answers = bucket.run(run, read_rows)
        seconds = time.perf_counter() - started
        contract, observed = self._contract, self._contract.observed
        assert contract.arena is not None
        finite = np.isfinite(answers[contract.arena.finite])
        return Result(
            tuple(answers[port.name] for port in contract.outputs),
            None if finite.all() else finite,
            seconds,
            None if observed is None else answers[observed.output],
        )

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The states of some rows; see `Backend.read`."""
        states = self._store.read(rows)
        if self._initial is not None:
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
        self._buckets.clear()
        del self._session, self._store

    def warm_up(self, batch_chunks: int) -> None:
        """Make the buckets for one step, and the smallest for two, and run each on scratch rows."""
        sizes = [(batch, 1) for batch in buckets(batch_chunks)]
        for batch, steps in sizes + [(1, 2)] * (self._contract.max_steps > 1):
            with self._denormals.as_zero():
                self._bucket(batch, steps).idle()

    def captures(self, batch_chunks: int) -> list[Callable[[], None]]:
        """What records the CUDA graphs, one a bucket; for the thread that runs batches.

        No other may use the device meanwhile: the runtime records in CUDA's global mode, in which both would fail.
        """
        return [partial(self.record, batch) for batch in buckets(batch_chunks)]

    def record(self, batch: int) -> None:
        """Record the CUDA graph of runs of one step with so many members; see `captures`."""
        bucket = self._bucket(batch, 1)
        bucket.capture(bucket.batch.bit_length())

    def _bring_in(self, run: Run) -> Rows:
        """The rows to read, all of them in the arena.

        States that are elsewhere, in the spill file or in the contract, are put into the rows that the run writes and
        read from there: until it is committed, the session still has them where they were.
        """
        outside = run.read_rows < INITIAL_ROW
        if self._initial is not None:
            outside |= run.read_rows == INITIAL_ROW
        if not np.count_nonzero(outside):
            return run.read_rows
        self._store.write(run.write_rows[outside], self.read(run.read_rows[outside]))
        return np.where(outside, run.write_rows, run.read_rows)

    def _bucket(self, batch: int, steps: int) -> Bucket:
        size = power_of_two(batch), min(power_of_two(steps), self._contract.max_steps)
        if size not in self._buckets:
            self._buckets[size] = Bucket(self._session, self._contract, self._store, *size)
        return self._buckets[size]


def buckets(batch_chunks: int) -> list[int]:
    """The sizes of batches: powers of two, up to the first that holds the largest batch."""
    return [1 << power for power in range(power_of_two(batch_chunks).bit_length())]


def power_of_two(count: int) -> int:
    """The smallest that is not less."""
    return 1 << (count - 1).bit_length()
