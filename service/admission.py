"""The door: takes groups of chunks into the queue.

Most chunks are the next ones of sessions that have room: `_plain` finds them all at once, and they become cohorts. Each
other chunk is decided alone, by `Rules`, which knows every case; `_plain` is only a faster way to the same end.
"""

import numpy as np
from numpy.typing import NDArray

from service.cohort import Cohort
from service.errors import ServiceError
from service.group import Columns, Group
from service.kept import WINDOW_BYTES, WINDOW_CHUNKS
from service.queue import ChunkQueue
from service.repository import ServedModel
from service.rules import Rules
from service.sessions import SessionTable, Slots

Positions = NDArray[np.int64]
_NOBODY: Positions = np.empty(0, np.int64)


class Admission:
    """Makes cohorts of what is new, and answers the rest.

    Args:
        batch_chunks: Most members of a cohort.
    """

    def __init__(self, table: SessionTable, queue: ChunkQueue, rules: Rules, batch_chunks: int) -> None:
        self._table = table
        self._queue = queue
        self._rules = rules
        self._batch_chunks = batch_chunks

    def admit(self, model: ServedModel, group: Group, now: float) -> list[Cohort]:
        """Take every chunk of a group in, or tell its caller why not.

        Returns:
            The new cohorts that may run: what stands before them has ended, or the backend has all of it.
        """
        columns = Columns(group, model.contract)
        plain = self._plain(model, columns)
        cohorts = self._cohorts(model, columns, plain, now)
        if plain is not None:
            for position in np.setdiff1d(np.arange(len(columns)), plain).tolist():
                cohorts += self._admit_one(model, columns, position, now)
        return [one for one in cohorts if one.predecessor is None or one.predecessor.ending]

    def _plain(self, model: ServedModel, columns: Columns) -> Positions | None:
        """Positions of the chunks that can be taken in without a second look; None: all."""
        lengths = columns.length if columns.uniform else np.array(columns.lengths)
        longest = columns.length if columns.uniform else max(columns.lengths)
        sizes = lengths * model.step_bytes
        whole = len(columns) * longest * model.step_bytes
        if longest > model.chunk_steps or not self._rules.room_for(len(columns), whole):
            return _NOBODY
        table, slots = self._table, columns.slots
        fine = table.tail[slots] == columns.firsts
        if columns.numbered is not None:
            fine |= ~columns.numbered
        fine &= table.serial[slots] == columns.serials
        fine &= table.next_index[slots] >= columns.acknowledged
        if not columns.distinct:
            fine &= _first_seen(slots)
        if columns.mistakes or any(caller.left for caller, _ in columns.callers):
            wrong = [caller.left or k in columns.mistakes for k, (caller, _) in enumerate(columns.owners)]
            fine &= ~np.array(wrong)
        fits = self._fits(slots, sizes)
        if np.count_nonzero(fits) < len(columns):
            # Only once what was acknowledged is forgotten: every eighth step, of a session that never waits.
            earlier = self._table.acknowledged[slots[fine]]
            self._table.acknowledged[slots[fine]] = np.maximum(earlier, columns.acknowledged[fine])
            self._rules.forget(model.number, slots[fine])
            fits = self._fits(slots, sizes)
            fine &= fits if columns.numbered is None else fits | ~columns.numbered
        return None if np.count_nonzero(fine) == len(columns) else fine.nonzero()[0]

    def _fits(self, slots: Slots, sizes: NDArray[np.int64] | int) -> NDArray[np.bool_]:
        """Whether one more answer of this size fits into the windows of the sessions."""
        fits: NDArray[np.bool_] = self._table.window_chunks[slots] < WINDOW_CHUNKS
        fits &= self._table.window_bytes[slots] <= WINDOW_BYTES - sizes
        return fits

    def _admit_one(self, model: ServedModel, columns: Columns, position: int, now: float) -> list[Cohort]:
        caller, of_frame = columns.owners[position]
        if caller.left:
            return []
        try:
            if self._table.serial[columns.slots[position]] != columns.serials[position]:
                raise caller.gone(of_frame)
            if position in columns.mistakes:
                raise columns.mistakes[position]
            if self._rules.decide(model.number, columns, position, now):
                return self._cohorts(model, columns, np.array([position]), now)
        except ServiceError as error:
            caller.refused(of_frame, error.again())
        return []

    def _cohorts(
        self, model: ServedModel, columns: Columns, plain: Positions | None, now: float
    ) -> list[Cohort]:
        """Cohorts of the chunks at `plain`: of one length and one predecessor each, and not too large."""
        most = self._batch_chunks
        jobs = self._table.job[columns.slots if plain is None else columns.slots[plain]]
        if not len(jobs):
            return []
        alike = columns.uniform and np.count_nonzero(jobs != jobs[0]) == 0
        if plain is None and alike and len(columns) <= most:
            return [self._cohort(model, columns, None, now)]
        plain = np.arange(len(columns)) if plain is None else plain
        parts = [plain]
        if not alike:
            kinds = np.stack([np.array(columns.lengths)[plain], jobs])
            _, kind_of = np.unique(kinds, axis=1, return_inverse=True)
            parts = [plain[kind_of.ravel() == kind] for kind in range(int(kind_of.max()) + 1)]
        return [
            self._cohort(model, columns, part[start : start + most], now)
            for part in parts
            for start in range(0, len(part), most)
        ]

    def _cohort(
        self, model: ServedModel, columns: Columns, positions: Positions | None, now: float
    ) -> Cohort:
        """A cohort of the chunks at some positions; None: of all."""
        some = columns if positions is None else columns.at(positions)
        firsts = some.firsts
        if some.numbered is not None:
            firsts = np.where(some.numbered, firsts, self._table.tail[some.slots])
        cohort = Cohort(
            number=self._queue.next_number(),
            model=model.number,
            length=some.length,
            slots=some.slots,
            serials=some.serials,
            firsts=firsts,
            numbered=some.numbered,
            digests=some.digests,
            acknowledged=some.acknowledged,
            inputs=some.batched,
            segments=some.segments,
            queued_at=now,
            predecessor=self._queue.cohort(int(self._table.job[some.slots[0]])),
        )
        for segment in cohort.segments:
            segment.caller.waits.append(cohort)
        self._queue.put(cohort, now)
        return cohort


def _first_seen(slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a position is the first one of its slot."""
    seen = np.zeros(len(slots), np.bool_)
    seen[np.unique(slots, return_index=True)[1]] = True
    return seen
