"""What the gates of each session did last, of models exported with `--observe`. On the event-loop thread alone.

Axes: B members of a run, K statistics.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.backend import Result
from service.batch import Batch
from service.metrics import Metrics
from service.repository import ServedModel
from service.sessions import SessionTable


class _Last(NamedTuple):
    """The last rows of all sessions of one model, by slot."""

    serials: NDArray[np.int64]
    """Whose row it is: a slot has many sessions in its life."""
    ends: NDArray[np.int64]
    """The number of steps that the session had with it: the row of a session that was put back is no longer true."""
    values: NDArray[np.float32]
    """`[sessions, K]`"""


class Observations:
    """The last row of each session. Versions that observe nothing have none, and cost nothing."""

    def __init__(self, table: SessionTable, metrics: Metrics) -> None:
        self._table = table
        self._metrics = metrics
        self._of_model: dict[int, _Last] = {}

    def take(self, model: ServedModel, batch: Batch, result: Result) -> None:
        """Take what a run saw, right before its result is applied.

        Only chunks that this run commits leave a row: not those that go on, whose session has ended or whose new state
        is not finite.
        """
        observed, seen = model.contract.observed, result.observed
        if observed is None or seen is None:
            return
        self._metrics.observe_gates(model.key, observed.statistics, seen)
        if model.number not in self._of_model:
            self._of_model[model.number] = _nothing_yet(self._table.limit, len(observed.statistics))
        last, start = self._of_model[model.number], 0
        for cohort, steps in zip(batch.cohorts, batch.steps, strict=True):
            part = slice(start, start + len(cohort))
            start = part.stop
            if cohort.done + steps < cohort.length:
                continue
            good = self._table.serial[cohort.slots] == cohort.serials
            if result.finite is not None:
                good &= result.finite[part]
            slots = cohort.slots[good]
            last.serials[slots] = cohort.serials[good]
            last.ends[slots] = cohort.firsts[good] + cohort.length
            last.values[slots] = seen[part][good]

    def of(self, slot: int) -> list[float]:
        """The last row of a live session; empty: it has none."""
        table = self._table
        last = self._of_model.get(int(table.model[slot]))
        stands = table.serial[slot], table.next_index[slot]
        if last is None or (last.serials[slot], last.ends[slot]) != stands:
            return []
        values: list[float] = last.values[slot].tolist()
        return values

    def drop(self, model: int) -> None:
        """A version is gone."""
        self._of_model.pop(model, None)


def _nothing_yet(sessions: int, statistics: int) -> _Last:
    """Pages of zeros cost nothing until a session writes to them."""
    serials, ends = np.zeros(sessions, np.int64), np.zeros(sessions, np.int64)
    return _Last(serials, ends, np.zeros((sessions, statistics), np.float32))
