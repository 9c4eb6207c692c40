"""Which chunks run together, and how many of their steps. Pure: `now` is an argument, nothing waits here.

A batch holds at most one chunk a session (the engine offers only the first of each). Chunks wait in queues by model
and by the power of two that their next run rounds up to, so that less than half of a batch is padding. The queue
whose first chunk has waited longest goes first. A long chunk runs `run_steps` at a time and then queues again, so
that a single step waits for at most one such run of each other queue.
"""

from collections import deque
from collections.abc import Mapping

from service.batch import Batch, Slice
from service.session import Chunk


class Scheduler:
    """Ready chunks, oldest first."""

    def __init__(self, batch_chunks: int, run_steps: Mapping[str, int]) -> None:
        """Make a scheduler without work.

        Args:
            batch_chunks: Most chunks of a batch.
            run_steps: Most steps of a run, by model.
        """
        self.batch_chunks = batch_chunks
        self.run_steps = run_steps
        self._queues: dict[tuple[str, int], deque[tuple[int, Chunk]]] = {}
        self._added = 0

    def add(self, chunk: Chunk) -> None:
        """A chunk is ready: it is the first of its session and not running."""
        self._added += 1
        key = (chunk.session.model, (self._next_steps(chunk) - 1).bit_length())
        self._queues.setdefault(key, deque()).append((self._added, chunk))

    def next_batch(self) -> Batch | None:
        """What to run now; None if nothing is ready. Chunks dropped in the meantime are passed over."""
        for queue in self._queues.values():
            while queue and queue[0][1].dropped:
                queue.popleft()
        ready = [(queue[0][0], key) for key, queue in self._queues.items() if queue]
        if not ready:
            return None
        key = min(ready)[1]
        queue = self._queues[key]
        slices: list[Slice] = []
        while queue and len(slices) < self.batch_chunks:
            chunk = queue.popleft()[1]
            if not chunk.dropped:
                slices.append(Slice(chunk, chunk.done, self._next_steps(chunk)))
        return Batch(key[0], tuple(slices))

    def _next_steps(self, chunk: Chunk) -> int:
        return min(chunk.steps.length - chunk.done, self.run_steps[chunk.session.model])
