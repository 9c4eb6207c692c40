"""What the engine needs from whatever runs a model. The dispatcher thread is its only caller."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Run:
    """One batch, padded. Axes: B sessions, T steps.

    No row is written twice, none that is written is negative, B and T are at least 1 and so is every length.
    """

    read_rows: NDArray[np.int64]
    """`[B]`: rows that hold the states before the run; below 0: places in the spill file."""
    write_rows: NDArray[np.int64]
    """`[B]`: rows that get the states after it; may equal `read_rows`."""
    lengths: NDArray[np.int32]
    """`[B]`: steps of each session, at most T."""
    inputs: tuple[NDArray[np.generic], ...]
    """`[B, T, *shape]` each, in the order of the contract."""
    memory_rows: NDArray[np.int64] | None = None
    """`[B]`: rows of the read-only planes; None: the model has none."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave."""

    outputs: tuple[NDArray[np.generic], ...]
    """`[B, T, *shape]` each, in the order of the contract; undefined beyond a session's length."""
    finite: NDArray[np.bool_] | None
    """`[B]`: whether the new state is finite; None: all are. A row that is not may have been written,
    and never becomes a session's."""
    seconds: float
    """Time in the runtime."""
    observed: NDArray[np.float32] | None = None
    """`[B, K]`: what the gates did, for models whose contract names it."""


class Backend(Protocol):
    """Runs batches over state rows that it owns the contents of."""

    def run(self, run: Run) -> Result:
        """Read rows, run, check, write rows. An exception means that the rows written are nobody's."""
        ...

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        """The states of some rows, `[n, S]`; a row below 0 is in the spill file."""
        ...

    def write(self, rows: NDArray[np.int64], states: NDArray[np.generic]) -> None:
        """Put states `[n, S]` into rows of the arena that nobody else owns."""
        ...

    def spill(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Copy rows to the spill file; place p is row -1 - p from then on."""
        ...

    def warm_up(self, batch_chunks: int) -> None:
        """Make the first real run as fast as the others. Writes no row that a session can own."""
        ...

    def close(self) -> None:
        """Free the model, and the rows if it is the last over them. Nothing is asked of it any more."""
        ...
