"""More sessions than memory: the rows of sessions that were idle longest move to a file when rows run short.

A session whose row is below 0 is spilled; its next run reads the file instead of the arena and writes an arena row, so
that nothing has to be brought back before. The file is as large as all rows, but sparse, and not durable.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from service.batch import Batch
from service.cohort import Cohort
from service.errand import Errand
from service.rows import INITIAL_ROW, RowAllocator
from service.sessions import FREE, SessionTable, Slots

if TYPE_CHECKING:
    from service.repository import ServedModel

NO_ROOM = "no memory for more states, and idle ones cannot be written to disk; try again"
RETRY_S = 0.1
"""Pause after rows could not be written."""
LOOK_S = 1e-7
"""Pause after none was idle, for each session looked at: far longer than looking takes."""
SPILL_ROWS = 1024
"""Rows that leave at once, if an eighth of all is not less."""
RESERVE_BYTES = 1 << 20
"""Disk space that is asked for at once."""
SCAN_SLOTS = 1 << 16
"""Sessions looked at before the loop turns to others: the idlest of them leave, not of all."""

_log = structlog.get_logger(__name__)


class SpillFile:
    """Places for rows in a file of its own, made anew by every server.

    Args:
        path: Written over.
        places: As many as there can be sessions.
        resident: Rows of the arena beyond which idle ones leave.
    """

    def __init__(self, path: Path, places: int, resident: int) -> None:
        self.resident = resident
        self.places = RowAllocator(places, first=0)
        self._path = path
        self._places = places
        self._file: IO[bytes] | None = None
        self._item_bytes = self._reserved = 0

    def open(self, item: np.dtype[Any]) -> NDArray[np.void]:
        """The file as an array of rows.

        Raises:
            OSError: it cannot be made.
        """
        # A new file, not the old one cut short: somebody may still have states in that.
        self._path.unlink(missing_ok=True)
        self._file = self._path.open("x+b", buffering=0)
        self._item_bytes = item.itemsize
        return np.memmap(self._file, item, "w+", shape=(self._places,))

    def reserve(self, places: NDArray[np.int64]) -> None:
        """Make the disk have room for these places.

        A mapped page that finds the disk full ends the process; a write says so.

        Raises:
            OSError: it has not.
        """
        assert self._file is not None
        end = (int(places.max()) + 1) * self._item_bytes
        if end > self._reserved:
            end = min(-(-end // RESERVE_BYTES) * RESERVE_BYTES, self._places * self._item_bytes)
            self._file.seek(self._reserved)
            if self._file.write(bytes(end - self._reserved)) < end - self._reserved:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self._reserved = end

    def close(self) -> None:
        """Remove the file: it means nothing without its server."""
        self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()


class Move(NamedTuple):
    """Rows that are on their way to the file."""

    model: "ServedModel"
    slots: Slots
    serials: Slots
    rows: Slots
    places: Slots

    def job(self) -> None:
        """Copy them; for the thread that owns rows."""
        self.model.backend.spill(self.rows, self.places)


class Spilling:
    """Decides which rows leave, and when."""

    def __init__(self, table: SessionTable, served: "Sequence[ServedModel]") -> None:
        self._table = table
        self._served = served
        self._hand = 0
        self._not_before = 0.0
        """While rows cannot be written."""
        self._not_idle_before = 0.0
        """While there is none that could leave."""
        self._looks_again = False

    @property
    def pressing(self) -> bool:
        """Whether rows are to leave, if there are idle ones."""
        return any(one.spill is not None and one.rows.used > one.spill.resident for one in self._served)

    def next_errand(self, clock: Callable[[], float]) -> Errand | None:
        """Let idle rows leave if the next run might find too few free."""
        move = self.next_move(clock())
        if move is None:
            return None
        return Errand(lambda: move.job, lambda failed: self.moved(move, failed, clock()))

    def next_move(self, now: float) -> Move | None:
        """Rows that should leave before the next run; None while there is room."""
        for model in self._served:
            if model.spill is None or model.rows.used <= model.spill.resident:
                continue
            if now < max(self._not_before, self._not_idle_before):
                continue
            # Some at once, so that the table is not searched again for every session that comes back.
            slots = self._idlest(model, max(1, min(SPILL_ROWS, model.spill.resident // 8)))
            if len(slots):
                self._looks_again = False
                places = model.spill.places.take(len(slots))
                return Move(model, slots, self._table.serial[slots], self._table.row[slots], places)
            self._not_idle_before = now + LOOK_S * self._table.used_slots
        return None

    def look_again(self, now: float) -> bool:
        """There is no room: look for idle rows once more before the pause is over, for there may be some by now.

        Returns:
            Whether that may help.
        """
        paused = self._not_before <= now < self._not_idle_before
        self._looks_again = paused and not self._looks_again
        if self._looks_again:
            self._not_idle_before = now
        return self._looks_again

    def moved(self, move: Move, failed: Exception | None, now: float) -> None:
        """The copies are made: the sessions that have not moved since have their rows in the file from now on."""
        model, slots, serials, rows, places = move
        left = (self._table.serial[slots] == serials) & (self._table.row[slots] == rows)
        if failed is not None:
            _log.error("spill_failed", model=model.key, rows=len(rows), exc_info=failed)
            self._not_before, left = now + RETRY_S, np.zeros(len(slots), np.bool_)
        self._table.row[slots[left]] = -1 - places[left]
        model.give(np.concatenate([rows[left], -1 - places[~left]]))

    def _idlest(self, model: "ServedModel", count: int) -> Slots:
        """Sessions with a row and nothing queued, idle longer than others near them in the table."""
        table, end = self._table, self._table.used_slots
        among = np.array([other.rows is model.rows for other in self._served])
        for _ in range(1 + -(-end // SCAN_SLOTS)):  # once more: it begins in the middle
            start = self._hand if self._hand < end else 0
            part = slice(start, min(start + SCAN_SLOTS, end))
            self._hand = part.stop
            can_leave = (table.row[part] > INITIAL_ROW) & (table.job[part] == 0)
            can_leave &= (table.serial[part] != FREE) & among[table.model[part]]
            slots: Slots = can_leave.nonzero()[0] + start
            if len(slots) > count:
                slots = slots[np.argpartition(table.used_us[slots], count)[:count]]
            if len(slots):
                return slots
        return np.empty(0, np.int64)


def too_many(
    batch: Batch,
    queue: Iterable[Cohort],
    table: SessionTable,
    served: "Sequence[ServedModel]",
    second_rows: int,
) -> list[tuple[Cohort, list[int]]]:
    """Members of a batch whose sessions have no row yet, when there is no room for all of them.

    Args:
        batch: What is to run.
        queue: All cohorts that have not ended.
        table: The sessions.
        served: The models, by number.
        second_rows: Those that must stay free: sessions that have a row can always go on.
    """
    rows = served[batch.model].rows
    most = rows.capacity - 1 - second_rows
    if rows.used + batch.size <= most:
        return []
    started = [cohort for cohort in queue if cohort.started and served[cohort.model].rows is rows]
    # Behind a chunk that runs there will be a row.
    needs = {
        cohort: (table.row[cohort.slots] <= INITIAL_ROW) & (cohort.predecessor is None)
        for cohort in (*started, *batch.cohorts)
    }
    new = [cohort for cohort in batch.cohorts if not cohort.started and np.count_nonzero(needs[cohort])]
    owned = rows.used - sum(map(len, started))
    if owned + sum(map(np.count_nonzero, needs.values())) <= most:
        return []
    return [(cohort, np.flatnonzero(needs[cohort]).tolist()) for cohort in new]
