"""What a chunk is, decided for one chunk alone: every case there is. Pure but for the callers that it answers.

A chunk is (index of its first step, number of steps, digest of its inputs): new, joined, replayed, different or
unexpected. See docs/adr/0003-commit-path.md.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.cohort import Answers, Cohort, Waiter
from service.errors import (
    ContentDiffersError,
    DrainingError,
    IndexUnexpectedError,
    InvalidInputError,
    QueueFullError,
    WindowFullError,
)
from service.group import Columns
from service.kept import WINDOW_BYTES, WINDOW_CHUNKS, KeptAnswers
from service.metrics import Metrics
from service.queue import ChunkQueue
from service.repository import ServedModel
from service.sessions import SessionTable, micro

CHUNK_WAITERS = 64
"""Callers that may wait for one chunk. Repeating a chunk costs its client nothing, so it must be bounded here."""
SCAN_SLOTS = 1 << 12
"""Sessions looked at when there is no room for an answer: the next attempt looks at the next ones."""


class Rules:
    """Decides over the session table, the queue and the kept answers.

    Args:
        queue_chunks: Most chunks between admission and commit.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        table: SessionTable,
        kept: KeptAnswers,
        queue: ChunkQueue,
        metrics: Metrics,
        queue_chunks: int,
    ) -> None:
        self._models = models
        self._table = table
        self._kept = kept
        self._queue = queue
        self._metrics = metrics
        self._queue_chunks = queue_chunks
        self._hand = 0
        self.draining = False

    def room_for(self, chunks: int, answer_bytes: int) -> bool:
        """Whether the server has room for so many new chunks and their kept answers."""
        fits = self._queue.chunks + chunks <= self._queue_chunks and not self.draining
        return fits and self._can_keep(answer_bytes)

    def forget(self, model: int, slots: NDArray[np.int64]) -> None:
        """Forget the answers that these sessions of one model, each named once, have acknowledged."""
        forgotten = self._kept.release(model, slots, self._table.acknowledged[slots])
        if forgotten is not None:
            self._table.window_chunks[slots] -= forgotten[0]
            self._table.window_bytes[slots] -= forgotten[1]

    def decide(self, model: int, columns: Columns, position: int, now: float) -> bool:
        """Decide what a chunk of a live session is.

        Returns:
            Whether it is new; a chunk sent before has joined the queued one or been answered from what is kept.

        Raises:
            ServiceError: it is refused. Only what it acknowledged stays true, and that its session is used.
        """
        table, slot = self._table, int(columns.slots[position])
        acknowledged, committed = int(columns.acknowledged[position]), int(table.next_index[slot])
        if acknowledged > committed:
            raise InvalidInputError(
                f"acknowledged: expected at most {committed}, the number of committed steps, got {acknowledged}"
            )
        table.acknowledged[slot] = max(acknowledged, int(table.acknowledged[slot]))
        self.forget(model, np.array([slot]))
        table.used_us[slot] = micro(now)
        numbered = columns.numbered is None or bool(columns.numbered[position])
        if numbered and columns.firsts[position] != table.tail[slot]:
            self._find_again(model, columns, position)
            return False
        self._check_room(model, slot, int(columns.lengths[position]), numbered=numbered)
        return True

    def check_open(self) -> None:
        """Refuse new sessions and chunks while draining.

        Raises:
            DrainingError: connect again, to the next server.
        """
        if self.draining:
            raise DrainingError("the server is going down; connect again in a moment")

    def _find_again(self, model: int, columns: Columns, position: int) -> None:
        """Answer a chunk that is not the next one, if it was sent before."""
        slot, first = int(columns.slots[position]), int(columns.firsts[position])
        waiter = Waiter(*columns.owners[position])
        came = (int(columns.lengths[position]), int(columns.digests[position]))
        for cohort, member in self._queue.chain(slot):
            # A chunk that was not numbered has no name to be joined by.
            if cohort.is_numbered(member) and cohort.firsts[member] == first:
                _check_same(first, (cohort.length, int(cohort.digests[member])), came)
                return self._join(cohort, member, waiter)
        for chunk in self._kept.of(slot, int(self._table.acknowledged[slot])):
            if chunk.first == first:
                _check_same(first, (chunk.length, chunk.digest), came)
                self._metrics.replays.inc()
                outputs = self._kept.outputs(model, chunk)
                answers = Answers([waiter.position], [first], chunk.length, outputs, chunk.version)
                return waiter.caller.answered(answers)
        tail = int(self._table.tail[slot])
        trouble = "a gap" if first > tail else "no longer kept, or not the first step of what was sent"
        raise IndexUnexpectedError(f"first index: expected {tail}, got {first} ({trouble})", tail)

    def _join(self, cohort: Cohort, member: int, waiter: Waiter) -> None:
        if sum(1 for _ in cohort.waiters(member)) >= CHUNK_WAITERS:
            raise QueueFullError(f"{CHUNK_WAITERS} callers wait for this chunk already; wait for one of them")
        self._metrics.joins.inc()
        # Without those who left: joining and leaving costs nothing either.
        stay = [other for other in cohort.joined.get(member, ()) if not other.caller.left]
        cohort.joined[member] = [*stay, waiter]
        waiter.caller.waits.append(cohort)

    def _check_room(self, model: int, slot: int, length: int, *, numbered: bool) -> None:
        self.check_open()
        served = self._models[model]
        if length > served.chunk_steps:
            raise InvalidInputError(
                f"length: expected at most {served.chunk_steps} steps a chunk, got {length}"
            )
        if numbered:
            self._check_window(slot, length * served.step_bytes)
        if self._queue.chunks >= self._queue_chunks:
            raise QueueFullError(
                f"{self._queue.chunks} chunks are queued, as many as the server takes; try again"
            )

    def _check_window(self, slot: int, size: int) -> None:
        count = int(self._table.window_chunks[slot]) + 1
        in_window = int(self._table.window_bytes[slot]) + size
        if count > WINDOW_CHUNKS or in_window > WINDOW_BYTES:
            raise WindowFullError(
                f"unacknowledged answers: at most {WINDOW_CHUNKS} chunks and {WINDOW_BYTES} bytes a session, "
                f"this would be number {count} and make {in_window} bytes; acknowledge first"
            )
        if not self._can_keep(size):
            raise QueueFullError(
                f"{self._kept_bytes()} bytes of answers of all sessions are not acknowledged, "
                f"and the server keeps at most {self._kept.limit_bytes}; try again"
            )

    def _can_keep(self, size: int) -> bool:
        """Whether the answers of all sessions leave room for so many bytes."""
        if self._kept_bytes() + size > self._kept.limit_bytes:
            self._forget_some()
        return self._kept_bytes() + size <= self._kept.limit_bytes

    def _forget_some(self) -> None:
        """Forget what some sessions have acknowledged: a session that is idle does not come to do it itself."""
        end = self._table.used_slots
        start = self._hand if self._hand < end else 0
        self._hand = min(start + SCAN_SLOTS, end)
        models = self._table.model[start : self._hand]
        for model in np.unique(models).tolist():
            self.forget(model, (models == model).nonzero()[0] + start)

    def _kept_bytes(self) -> int:
        return self._kept.total_bytes + self._queue.promised_bytes


def _check_same(first: int, before: tuple[int, int], now: tuple[int, int]) -> None:
    if before != now:
        raise ContentDiffersError(
            f"index {first} was sent before with other content: {before[0]} steps then, {now[0]} now"
            + ("" if before[0] != now[0] else ", with other inputs")
        )
