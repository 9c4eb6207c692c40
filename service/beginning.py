"""Sessions that begin with a state: copies of another session, and what comes back from a snapshot.

Rows are taken on the event loop, written between two runs, and owned by sessions only when nothing can fail any more:
all of the new sessions live then, or none. The state of a single session is read and written here alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.between_runs import between_runs
from service.engine import Engine
from service.errand import Job
from service.errors import ModelDiffersError, QueueFullError
from service.repository import ServedModel
from service.rows import INITIAL_ROW, Rows
from service.sessions import Slots
from service.tombstones import Key

State = NDArray[np.generic]
"""`[S]`"""
Planes = tuple[State, ...]
"""The state and, unless they are shared, the read-only planes after it."""


class Beginning(NamedTuple):
    """What new sessions begin with."""

    model: ServedModel
    ttl_us: int
    next_index: int
    state: Callable[[], Planes] | None
    """Called on the thread that owns rows; None: the initial state, which takes no row."""
    memory: int | None = None
    """Row of the read-only planes, to be shared with whom has it; None: `state` gives them, too, if the model has them."""


class Begun(NamedTuple):
    """New sessions."""

    slots: Slots
    serials: Slots
    next_index: int


@dataclass
class Opening:
    """Sessions on their way: `start`, the job and `apply`, or else `undo`."""

    engine: Engine
    count: int
    look_up: Callable[[], Beginning]
    open_all: Callable[[Beginning], Slots]
    beginning: Beginning = field(init=False)
    rows: Rows = field(default_factory=lambda: np.empty(0, np.int64), init=False)
    memory: int | None = field(default=None, init=False)
    """Row of the read-only planes, of all of them."""

    def start(self) -> Job:
        """Take rows, and return the job that writes them."""
        self.beginning = self.look_up()
        if self.beginning.state is not None:
            check_room(self.engine, self.beginning.model, self.count)
            self.rows = self.beginning.model.rows.take(self.count)
        if (memory := self.beginning.model.memory) is not None:
            self.memory = self.beginning.memory
            if self.memory is None:
                self.memory = int(memory.take(np.array([self.count]))[0])
            else:
                memory.share(self.memory, self.count)
        return partial(write, self.beginning, self.rows, self.memory)

    def apply(self, _: None) -> Begun:
        """Open the sessions."""
        index, table = self.beginning.next_index, self.engine.table
        slots = self.open_all(self.beginning)
        table.next_index[slots] = table.tail[slots] = index
        if len(self.rows):
            table.row[slots] = self.rows
        if self.memory is not None:
            table.memory[slots] = self.memory
        return Begun(slots, table.serial[slots], index)

    def undo(self) -> None:
        """Give the rows back."""
        if len(self.rows):
            self.beginning.model.rows.give(self.rows)
        if self.memory is not None and self.beginning.model.memory is not None:
            self.beginning.model.memory.give(self.memory, self.count)


async def begin(
    engine: Engine, count: int, look_up: Callable[[], Beginning], open_all: Callable[[Beginning], Slots]
) -> Begun:
    """Open sessions that begin with a state.

    Args:
        engine: Where they are to live.
        count: How many.
        look_up: On the event loop, between two runs: what they begin with. May raise.
        open_all: Likewise, once their rows are written: opens so many sessions of the model, or raises.

    Raises:
        ServiceError: none was opened.
        QueueFullError: there is no memory for as many states.
    """
    opening = Opening(engine, count, look_up, open_all)
    return await between_runs(engine, opening.start, opening.apply, opening.undo)


async def begin_one(
    engine: Engine,
    name: Key,
    look_up: Callable[[], Beginning],
    find_model: Callable[[], ServedModel],
    *,
    pinned: bool = False,
) -> Begun:
    """Open a session of a name that no session has; see `begin`.

    Args:
        engine: Where it is to live.
        name: Its owner and id.
        look_up: What it begins with.
        find_model: Finds its model again, also after another version has taken over.
        pinned: Whether it asked for its version.
    """
    table = engine.table

    def check_and_look_up() -> Beginning:
        table.check_new([name])
        return look_up()

    def open_all(beginning: Beginning) -> Slots:
        model = find_model()
        if model.rows is not beginning.model.rows:
            raise ModelDiffersError(f"model {model.name!r} was replaced meanwhile by one with other states")
        slots = table.open_all([name], model.number, beginning.ttl_us, engine.clock())
        table.pinned[slots] = pinned
        return slots

    return await begin(engine, 1, check_and_look_up, open_all)


def standing(engine: Engine, slot: int) -> Beginning:
    """Where a session stands: between two runs, its row stays as it is while a job reads it."""
    table, row = engine.table, int(engine.table.row[slot])
    model = engine.served[int(table.model[slot])]
    state = None if row == INITIAL_ROW else partial(read_planes, model, row)
    memory = None if model.memory is None else int(table.memory[slot])
    return Beginning(model, int(table.ttl_us[slot]), int(table.next_index[slot]), state, memory)


def read_planes(model: ServedModel, row: int, memory: int | None = None) -> Planes:
    """One session's state, in memory or in the spill file, and its read-only planes; for the thread that owns rows.

    Args:
        model: Its model.
        row: Of its state.
        memory: Of its read-only planes; None: without them.
    """
    state = model.backend.read(np.array([row]))[0]
    if memory is None or model.memory is None:
        return (state,)
    return (state, *(plane[0] for plane in model.memory.read(np.array([memory]))))


def check_room(engine: Engine, model: ServedModel, count: int) -> None:
    """Whether so many sessions more can have a row each, and all others can still step.

    Raises:
        QueueFullError: they cannot.
    """
    # The other rows are second rows: sessions that have a row can always go on.
    most = model.rows.capacity - 1 - engine.limits.second_rows
    if model.rows.used + count <= most:
        return
    started = [
        cohort for cohort in engine.queue if cohort.started and engine.served[cohort.model].rows is model.rows
    ]
    will_own = sum(np.count_nonzero(engine.table.row[cohort.slots] <= INITIAL_ROW) for cohort in started)
    owned = model.rows.used - sum(map(len, started)) + will_own
    if owned + count > most:
        raise QueueFullError(
            f"no memory for {count} more states: {owned} of at most {most} are in use; try again, or with fewer"
        )


def write(beginning: Beginning, rows: Rows, memory: int | None) -> None:
    """Give each row the state that its session begins with; for the thread that owns rows."""
    if beginning.state is None:
        return
    state, *planes = beginning.state()
    beginning.model.backend.write(rows, np.repeat(state[None], len(rows), axis=0))
    if beginning.model.memory is not None and beginning.memory is None:
        beginning.model.memory.write(np.array([memory]), tuple(plane[None] for plane in planes))
