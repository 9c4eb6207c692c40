"""Decides what runs next. Pure.

Oldest first, and together with it whatever is ready and of about the same length. Steps are padded to the longest of a
run; a queue holds lengths of half an octave (5 and 6, 7 and 8, 9 to 12, 13 to 16, ...), so that less than a third of a
run's steps is waste. A chunk longer than a run is cut into equal parts, so that no small rest runs alone.
"""

from collections import deque

from service.batch import Batch
from service.cohort import Cohort


class Scheduler:
    """Ready cohorts, oldest first.

    Args:
        batch_chunks: Most members of a batch.
        run_steps: Most steps of a run, by model; models may be added.
    """

    def __init__(self, batch_chunks: int, run_steps: dict[int, int]) -> None:
        self.batch_chunks = batch_chunks
        self.run_steps = run_steps
        self._queues: dict[tuple[int, int], deque[tuple[int, Cohort]]] = {}
        self._added = 0

    def add(self, cohort: Cohort) -> None:
        """The next steps of a cohort may run."""
        self._added += 1
        key = (cohort.model, half_octave(self._next_steps(cohort)))
        self._queues.setdefault(key, deque()).append((self._added, cohort))

    @property
    def empty(self) -> bool:
        """Whether nothing is ready, but perhaps cohorts that were dropped."""
        return not any(self._queues.values())

    @property
    def steps(self) -> int:
        """How many steps may run now, those of dropped chunks included."""
        ready = [cohort for queue in self._queues.values() for _, cohort in queue]
        return sum(len(cohort) * self._next_steps(cohort) for cohort in ready)

    def wait(self, now: float, delay: float) -> float:
        """How long the next batch may wait for more chunks, when none waits longer than `delay` for a first run."""
        ready = [queue[0] for queue in self._queues.values() if queue]
        if not delay or not ready:
            return 0.0
        oldest = min(ready, key=lambda entry: entry[0])[1]
        together = sum(len(cohort) for queue in self._queues.values() for _, cohort in queue)
        if oldest.started or together >= self.batch_chunks:
            return 0.0
        return max(0.0, oldest.queued_at + delay - now)

    def next_batch(self) -> Batch | None:
        """What to run now; None if nothing is ready. Members dropped in the meantime are left out."""
        for queue in self._queues.values():
            while queue and not _shrunk(queue[0][1]):
                queue.popleft()
        ready = [(queue[0][0], key) for key, queue in self._queues.items() if queue]
        if not ready:
            return None
        key = min(ready)[1]
        queue, cohorts, size = self._queues[key], list[Cohort](), 0
        while queue and size + _shrunk(queue[0][1]) <= self.batch_chunks:
            cohort = queue.popleft()[1]
            if len(cohort):
                cohorts.append(cohort)
                size += len(cohort)
        steps = [self._next_steps(cohort) for cohort in cohorts]
        return Batch(key[0], cohorts, steps, size, max(steps))

    def _next_steps(self, cohort: Cohort) -> int:
        left = cohort.length - cohort.done
        runs = -(-left // self.run_steps[cohort.model])
        return -(-left // runs)


def half_octave(steps: int) -> int:
    """The same number for lengths that may share a run: each is more than 2/3 of every other."""
    octave = (steps - 1).bit_length()
    return 2 * octave + (4 * steps > 3 << octave)


def _shrunk(cohort: Cohort) -> int:
    """How many members are left."""
    cohort.shrink()
    return len(cohort)
