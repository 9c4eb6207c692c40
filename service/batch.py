"""What runs together, and its arrays. Axes: B slices, T steps of the longest."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.backend import Run
from service.session import Chunk


class Slice(NamedTuple):
    """The next steps of one chunk: `[start, start + steps)` of its own steps."""

    chunk: Chunk
    start: int
    steps: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What runs together: slices of one model, no two of one session."""

    model: str
    slices: tuple[Slice, ...]

    @property
    def steps(self) -> int:
        """T of the run: the longest slice."""
        return max(part.steps for part in self.slices)

    @property
    def padding(self) -> int:
        """Steps of the run that belong to nobody."""
        return self.steps * len(self.slices) - sum(part.steps for part in self.slices)

    def run(self) -> Run:
        """The batch as arrays; slices shorter than T are padded with zeros."""
        parts = self.slices
        return Run(
            # The first run of a chunk reads the current row, later ones what the run before has written.
            read_rows=np.array([part.chunk.row if part.start else part.chunk.session.row for part in parts]),
            write_rows=np.array([part.chunk.row for part in parts]),
            lengths=np.array([part.steps for part in parts], np.int32),
            inputs=tuple(self._input(port) for port in range(len(parts[0].chunk.steps.inputs))),
        )

    def _input(self, port: int) -> NDArray[np.generic]:
        arrays = [part.chunk.steps.inputs[port][part.start : part.start + part.steps] for part in self.slices]
        if self.padding == 0:
            return np.stack(arrays)
        lined = np.zeros((len(arrays), self.steps, *arrays[0].shape[1:]), arrays[0].dtype)
        for row, array in zip(lined, arrays, strict=True):
            row[: len(array)] = array
        return lined
