"""What a run gave, session by session: committed, or nothing at all. On the event-loop thread alone.

Row, index and kept answer change in `Results._commit` and nowhere else, without an await, before anybody is answered.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.backend import Result
from service.batch import Batch
from service.cohort import Array, Cohort
from service.errors import IndexUnexpectedError, ServiceError, StateNotFiniteError
from service.kept import KeptAnswers
from service.metrics import ModelMetrics
from service.queue import ChunkQueue, Link
from service.repository import ServedModel
from service.sessions import SessionTable, micro


class Ready(Protocol):
    """Takes cohorts whose next steps may run."""

    def add(self, cohort: Cohort) -> None:
        """It may run."""
        ...


class Results:
    """Applies results to the session table, the queue, the kept answers and the ownership of rows."""

    def __init__(
        self,
        served: Sequence[ServedModel],
        table: SessionTable,
        queue: ChunkQueue,
        kept: KeptAnswers,
        ready: Ready,
        metrics: Sequence[ModelMetrics],
        clock: Callable[[], float],
    ) -> None:
        self.served = served
        self.table = table
        self._queue = queue
        self._kept = kept
        self._ready = ready
        self.metrics = metrics
        self.clock = clock

    def apply(self, batch: Batch, result: Result) -> None:
        """Take the result of a run."""
        start = 0
        for cohort, steps in zip(batch.cohorts, batch.steps, strict=True):
            part = slice(start, start + len(cohort))
            start = part.stop
            outputs = result.outputs
            if len(batch.cohorts) > 1:
                outputs = tuple(output[part, :steps] for output in outputs)
            self.advance(cohort, steps, outputs, None if result.finite is None else result.finite[part])

    def advance(
        self, cohort: Cohort, steps: int, outputs: tuple[Array, ...], finite: NDArray[np.bool_] | None
    ) -> None:
        """Take one cohort's result."""
        alive = self.table.serial[cohort.slots] == cohort.serials
        cohort.parts.append(outputs)
        begin, cohort.done = cohort.done, cohort.done + steps
        if finite is not None or cohort.dropped is not None or np.count_nonzero(alive) < len(cohort):
            self._weed(cohort, alive, np.ones(len(cohort), np.bool_) if finite is None else finite, begin)
        if not len(cohort):
            return
        if cohort.done == cohort.length:
            self._commit(cohort)
        else:
            # A copy, or a chunk of many runs would keep the whole output of each.
            cohort.parts[-1] = tuple(output.copy() for output in cohort.parts[-1])
            self._ready.add(cohort)

    def _commit(self, cohort: Cohort) -> None:
        model, slots = self.served[cohort.model], cohort.slots
        ends, outputs = cohort.firsts + cohort.length, cohort.outputs()
        self._keep(cohort, ends, outputs, model.version)
        table = self.table
        model.give(table.row[slots])
        table.row[slots] = cohort.rows
        table.next_index[slots] = ends
        table.acknowledged[slots] = np.maximum(table.acknowledged[slots], cohort.acknowledged)
        table.used_us[slots] = micro(self.clock())
        last = table.job[slots]
        table.job[slots] = last * (last != cohort.number)
        self._queue.commit(cohort)
        metrics = self.metrics[cohort.model]
        metrics.chunks.inc(len(cohort))
        metrics.steps.inc(len(cohort) * cohort.length)
        cohort.answer(outputs, model.version)

    def _keep(
        self, cohort: Cohort, ends: NDArray[np.int64], outputs: tuple[Array, ...], version: str
    ) -> None:
        slots, digests = cohort.slots, cohort.digests
        if cohort.numbered is not None:
            named = cohort.numbered
            slots, ends, digests = slots[named], ends[named], digests[named]
            outputs = tuple(output[named] for output in outputs)
        if len(slots):
            self._kept.keep(cohort.model, slots, ends, cohort.length, digests, outputs, version)

    # -- chunks that come to nothing ------------------------------------------------------------------------------

    def _weed(self, cohort: Cohort, alive: NDArray[np.bool_], finite: NDArray[np.bool_], begin: int) -> None:
        """Take out members that were dropped, whose session has ended, or whose new state is not finite."""
        stay = np.ones(len(cohort), np.bool_) if cohort.dropped is None else ~cohort.dropped
        for member in np.flatnonzero(~stay).tolist():
            self._give_row(cohort, member)  # while it ran, the chunk before it failed
        gone, sick = stay & ~alive, stay & alive & ~finite
        self.metrics[cohort.model].not_finite.inc(int(sick.sum()))
        for member in np.flatnonzero(gone).tolist():
            self._give_row(cohort, member)
            for waiter in list(cohort.waiters(member)):
                waiter.caller.refused(waiter.position, waiter.caller.gone(waiter.position))
            self._queue.abandon(cohort, member)
        steps = [(int(first) + begin, int(first) + cohort.done - 1) for first in cohort.firsts]
        for member in np.flatnonzero(sick).tolist():
            span = "steps {} to {}".format(*steps[member])
            error = StateNotFiniteError(f"{span} would make the state NaN or infinite; nothing was applied")
            self.fail(cohort, [member], error)
        cohort.shrink()

    def fail(self, cohort: Cohort, members: Sequence[int], error: ServiceError) -> None:
        """Started chunks came to nothing: what was queued behind them has a gap before it."""
        for member in members:
            slot = int(cohort.slots[member])
            self._give_row(cohort, member)
            if cohort.is_dropped(member):
                continue
            if self.table.serial[slot] != cohort.serials[member]:
                self._queue.abandon(cohort, member)
                cohort.refuse(member, error)
                continue
            links = self._queue.chain(slot)
            self._queue.drop(slot, links)
            cohort.refuse(member, error)
            self._refuse_later(links, "failed")

    def fail_all(self, batch: Batch, error: ServiceError) -> None:
        """The run gave nothing."""
        for cohort in batch.cohorts:
            self.fail(cohort, range(len(cohort)), error)

    def take_back(self, cohort: Cohort) -> int:
        """Drop the members of a queued cohort that nobody waits for; returns how many chunks that were in all."""
        dropped = 0
        for member in range(len(cohort)):
            if cohort.is_dropped(member) or next(cohort.waiters(member), None) is not None:
                continue
            slot = int(cohort.slots[member])
            links = self._queue.chain(slot)
            links = links[next(k for k, (queued, _) in enumerate(links) if queued is cohort) :]
            self._queue.drop(slot, links)
            self._refuse_later(links, "was cancelled")
            dropped += len(links)
        return dropped

    @staticmethod
    def _refuse_later(links: list[Link], trouble: str) -> None:
        expected = int(links[0][0].firsts[links[0][1]])
        for cohort, member in links[1:]:
            message = (
                f"first index: expected {expected}, got {cohort.firsts[member]} (an earlier chunk {trouble})"
            )
            cohort.refuse(member, IndexUnexpectedError(message, expected))

    def _give_row(self, cohort: Cohort, member: int) -> None:
        self.served[cohort.model].rows.give(cohort.rows[member : member + 1])
