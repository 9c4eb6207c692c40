"""Decides what runs next. Pure.

Oldest first, and together with it whatever is ready and of about the same length. Steps are padded to the longest of a
run; a queue holds lengths of half an octave (5 and 6, 7 and 8, 9 to 12, 13 to 16, ...), so that less than a third of a
run's steps is waste. A chunk longer than a run is cut into equal parts, so that no small rest runs alone.
"""

from collections import deque
from typing import NamedTuple

from service.batch import Batch
from service.cohort import Cohort
from service.pace import Pace


class _Ready(NamedTuple):
    """A cohort whose next steps may run."""

    number: int
    """In the order of coming."""
    cohort: Cohort
    steps: int
    """How many it runs next."""


class Scheduler:
    """Ready cohorts, oldest first.

    Args:
        batch_chunks: Most members of a batch.
        pace: Says how many steps the next run of a model has at most.
    """

    def __init__(self, batch_chunks: int, pace: Pace) -> None:
        self.batch_chunks = batch_chunks
        self.pace = pace
        self._queues: dict[tuple[int, int], deque[_Ready]] = {}
        self._added = 0

    def add(self, cohort: Cohort) -> None:
        """The next steps of a cohort may run."""
        self._added += 1
        left = cohort.length - cohort.done
        runs = -(-left // self.pace.steps(cohort.model))
        steps = -(-left // runs)
        key = (cohort.model, half_octave(steps))
        self._queues.setdefault(key, deque()).append(_Ready(self._added, cohort, steps))

    @property
    def empty(self) -> bool:
        """Whether nothing is ready, but perhaps cohorts that were dropped."""
        return not any(self._queues.values())

    @property
    def steps(self) -> int:
        """How many steps may run now, those of dropped chunks included."""
        return sum(len(cohort) * steps for queue in self._queues.values() for _, cohort, steps in queue)

    def wait(self, now: float, delay: float) -> float:
        """How long the next batch may wait for more chunks, when none waits longer than `delay` for a first run."""
        ready = [queue[0] for queue in self._queues.values() if queue]
        if not delay or not ready:
            return 0.0
        oldest = min(ready).cohort
        together = sum(len(cohort) for queue in self._queues.values() for _, cohort, _ in queue)
        if oldest.started or together >= self.batch_chunks:
            return 0.0
        return max(0.0, oldest.queued_at + delay - now)

    def next_batch(self) -> Batch | None:
        """What to run now; None if nothing is ready. Members dropped in the meantime are left out."""
        for queue in self._queues.values():
            while queue and not _shrunk(queue[0].cohort):
                queue.popleft()
        ready = [(queue[0].number, key) for key, queue in self._queues.items() if queue]
        if not ready:
            return None
        key = min(ready)[1]
        queue, cohorts, steps, size = self._queues[key], list[Cohort](), list[int](), 0
        while queue and size + _shrunk(queue[0].cohort) <= self.batch_chunks:
            _, cohort, its_steps = queue.popleft()
            if len(cohort):
                cohorts.append(cohort)
                steps.append(its_steps)
                size += len(cohort)
        return Batch(key[0], cohorts, steps, size, max(steps))


def half_octave(steps: int) -> int:
    """The same number for lengths that may share a run: each is more than 2/3 of every other."""
    octave = (steps - 1).bit_length()
    return 2 * octave + (4 * steps > 3 << octave)


def _shrunk(cohort: Cohort) -> int:
    """How many members are left."""
    cohort.shrink()
    return len(cohort)
