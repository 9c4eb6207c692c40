"""Cohorts put together by hand, for tests of what handles them."""

from collections.abc import Sequence

import numpy as np

from service.cohort import Cohort, Segment
from service.sessions import SessionTable


def table_of(sessions: int, models: Sequence[int] | None = None) -> SessionTable:
    """A table whose slots 0 to `sessions` - 1 are live sessions."""
    table = SessionTable(sessions)
    for slot in range(sessions):
        table.open("me", f"s{slot}", models[slot] if models else 0, 10.0, 0.0)
    return table


def cohort(
    slots: Sequence[int],
    length: int = 1,
    *,
    number: int = 1,
    model: int = 0,
    firsts: Sequence[int] | None = None,
    numbered: Sequence[bool] | None = None,
    predecessor: Cohort | None = None,
    segments: Sequence[Segment] = (),
    serials: Sequence[int] | None = None,
) -> Cohort:
    """One chunk for each slot. The input of step t of member m is 100 m + t, its digest is 1000 + m."""
    count = len(slots)
    steps = 100 * np.arange(count)[:, None] + np.arange(length)
    return Cohort(
        number=number,
        model=model,
        length=length,
        slots=np.array(slots),
        serials=np.array([slot + 1 for slot in slots] if serials is None else serials),
        firsts=np.zeros(count, np.int64) if firsts is None else np.array(firsts),
        numbered=None if numbered is None else np.array(numbered),
        digests=1000 + np.arange(count),
        acknowledged=np.zeros(count, np.int64),
        inputs=(steps.astype(np.float32),),
        segments=list(segments),
        queued_at=0.0,
        predecessor=predecessor,
    )
