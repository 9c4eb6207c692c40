"""What runs together, and its arrays. Axes: B members of all cohorts, T steps of the longest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.backend import Run
from service.cohort import Array, Cohort
from service.sessions import SessionTable, Slots


class Batch(NamedTuple):
    """Cohorts of one model, and how many of its next steps each runs."""

    model: int
    cohorts: Sequence[Cohort]
    steps: Sequence[int]
    size: int
    """B of the run."""
    longest: int
    """T of the run."""

    @property
    def padding(self) -> int:
        """Steps of the run that belong to nobody."""
        used = sum(len(cohort) * steps for cohort, steps in zip(self.cohorts, self.steps, strict=True))
        return self.longest * self.size - used

    def end(self) -> list[Cohort]:
        """The backend has the batch; returns what waited only for the last steps of a cohort to be there."""
        ready = []
        for cohort, steps in zip(self.cohorts, self.steps, strict=True):
            if cohort.done + steps == cohort.length:
                cohort.ending = True
                ready += cohort.successors
        return ready

    def run(self, table: SessionTable, with_memory: bool = False) -> Run:
        """The batch as arrays; members with fewer steps than T are padded with zeros.

        Args:
            table: The sessions.
            with_memory: Whether the model has read-only planes.
        """
        memory = self._memory(table) if with_memory else None
        first = self.cohorts[0]
        read = [cohort.rows if cohort.done else _before(cohort, table) for cohort in self.cohorts]
        if len(self.cohorts) == 1:
            lengths = np.full(self.size, self.longest, np.int32)
            inputs = first.inputs
            if self.longest < first.length:
                part = slice(first.done, first.done + self.longest)
                inputs = tuple(array[:, part] for array in inputs)
            return Run(read[0], first.rows, lengths, inputs, memory)
        lengths = np.repeat(np.array(self.steps, np.int32), [len(cohort) for cohort in self.cohorts])
        return Run(
            # The first run of a chunk reads the current row, later ones what the run before has written.
            read_rows=np.concatenate(read),
            write_rows=np.concatenate([cohort.rows for cohort in self.cohorts]),
            lengths=lengths,
            inputs=tuple(self._input(port) for port in range(len(first.inputs))),
            memory_rows=memory,
        )

    def _memory(self, table: SessionTable) -> Slots:
        """Rows of the read-only planes. Sessions that ended meanwhile may have another's: nobody is told."""
        return np.concatenate([table.memory[cohort.slots] for cohort in self.cohorts])

    def _input(self, port: int) -> Array:
        parts = [
            cohort.inputs[port][:, cohort.done : cohort.done + steps]
            for cohort, steps in zip(self.cohorts, self.steps, strict=True)
        ]
        if self.padding == 0:
            return np.concatenate(parts)
        lined = np.zeros((self.size, self.longest, *parts[0].shape[2:]), parts[0].dtype)
        start = 0
        for part in parts:
            lined[start : start + len(part), : part.shape[1]] = part
            start += len(part)
        return lined


def _before(cohort: Cohort, table: SessionTable) -> Slots:
    """The rows of the states before a cohort: the current ones, or those that a run under way will have written."""
    if cohort.predecessor is None:
        rows: Slots = table.row[cohort.slots]
        return rows
    return cohort.predecessor.rows_of(cohort.slots)
