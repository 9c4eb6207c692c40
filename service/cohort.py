"""Chunks of one model and one length that were admitted together and go the rest of the way together.

Axes: n members, T steps of each. A chunk that comes alone is a cohort of one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.kept import Blobs
from service.sessions import Slots

Array = NDArray[np.generic]


class Answers(NamedTuple):
    """What one or many committed chunks of a frame gave."""

    positions: Sequence[int]
    """Which chunks of the frame."""
    firsts: Sequence[int]
    """Index of the first step of each."""
    length: int
    """Steps of each."""
    outputs: Blobs
    """One blob for each output of the contract: `[len(positions), length, *shape]`."""
    version: str
    """Of the model that gave them."""


class Caller(Protocol):
    """Waits for the chunks of one frame."""

    left: bool
    """It waits no longer: tell it nothing."""
    waits: list["Cohort"]
    """Cohorts with chunks that it waits for, those that are done included."""

    def answered(self, answers: Answers) -> None:
        """These chunks were committed."""
        ...

    def refused(self, position: int, error: ServiceError) -> None:
        """This chunk was not applied."""
        ...

    def gone(self, position: int) -> ServiceError:
        """Why the session of this chunk is no more."""
        ...


class Segment(NamedTuple):
    """The members `start` to `stop` came from one frame."""

    caller: Caller
    positions: Sequence[int]
    start: int
    stop: int


class Waiter(NamedTuple):
    """A chunk of somebody's frame."""

    caller: Caller
    position: int


@dataclass(eq=False, slots=True)
class Cohort:
    """Chunks between admission and answer. No session is in it twice."""

    number: int
    model: int
    length: int
    """T"""
    slots: Slots
    serials: NDArray[np.int64]
    firsts: NDArray[np.int64]
    numbered: NDArray[np.bool_] | None
    """Which members have an index of their client's: others cannot be asked for again. None: all."""
    digests: NDArray[np.int64]
    acknowledged: NDArray[np.int64]
    """The answers of all steps below it have been received."""
    inputs: tuple[Array, ...]
    """`[n, T, *shape]` each."""
    segments: list[Segment]
    queued_at: float
    predecessor: "Cohort | None" = None
    """Holds the chunk before, of every member."""
    successors: list["Cohort"] = field(default_factory=list)
    joined: dict[int, list[Waiter]] = field(default_factory=dict)
    """Callers who sent a member's chunk again."""
    dropped: NDArray[np.bool_] | None = None
    """Members that will not run."""
    started: bool = False
    ending: bool = False
    """The backend has its last run: what comes next may follow it there."""
    done: int = 0
    """Steps already run on the second rows."""
    rows: Slots = field(default_factory=lambda: np.empty(0, np.int64))
    """The second rows, once it has started."""
    parts: list[tuple[Array, ...]] = field(default_factory=list)
    """The outputs of each run, `[n, steps of the run, *shape]`."""

    def __len__(self) -> int:
        return len(self.slots)

    def member(self, slot: int) -> int:
        """The position of a session's chunk."""
        return int(np.flatnonzero(self.slots == slot)[0])

    def rows_of(self, slots: Slots) -> Slots:
        """The second rows of some of its sessions."""
        if np.array_equal(slots, self.slots):
            return self.rows
        order = np.argsort(self.slots)
        return self.rows[order[np.searchsorted(self.slots, slots, sorter=order)]]

    def is_dropped(self, member: int) -> bool:
        """Whether a member will not run."""
        return self.dropped is not None and bool(self.dropped[member])

    def is_numbered(self, member: int) -> bool:
        """Whether a member can be asked for again."""
        return self.numbered is None or bool(self.numbered[member])

    @property
    def names(self) -> int:
        """How many members can be asked for again."""
        return len(self.slots) if self.numbered is None else int(np.count_nonzero(self.numbered))

    def waiters(self, member: int) -> Iterator[Waiter]:
        """Whoever still waits for a member."""
        for segment in self.segments:
            if segment.start <= member < segment.stop and not segment.caller.left:
                yield Waiter(segment.caller, segment.positions[member - segment.start])
        yield from (waiter for waiter in self.joined.get(member, ()) if not waiter.caller.left)

    def refuse(self, member: int, error: ServiceError) -> None:
        """Tell everybody who waits for a member that it came to nothing."""
        for waiter in list(self.waiters(member)):
            waiter.caller.refused(waiter.position, error.again())

    def drop(self, member: int) -> None:
        """This member will not run; it stays in its place until `shrink`."""
        if self.dropped is None:
            self.dropped = np.zeros(len(self), np.bool_)
        self.dropped[member] = True

    def shrink(self) -> None:
        """Forget the members that were dropped."""
        if self.dropped is None:
            return
        stay = np.flatnonzero(~self.dropped)
        self.dropped = None
        moved = {member: k for k, member in enumerate(stay.tolist())}
        self.segments = [_segment for part in self.segments for _segment in _moved(part, moved)]
        self.joined = {moved[member]: who for member, who in self.joined.items() if member in moved}
        self.slots, self.serials, self.firsts = self.slots[stay], self.serials[stay], self.firsts[stay]
        self.numbered = None if self.numbered is None else self.numbered[stay]
        self.digests = self.digests[stay]
        self.acknowledged = self.acknowledged[stay]
        self.inputs = tuple(array[stay] for array in self.inputs)
        self.rows = self.rows[stay] if self.started else self.rows
        self.parts = [tuple(array[stay] for array in part) for part in self.parts]

    def outputs(self) -> tuple[Array, ...]:
        """The outputs of all runs, `[n, T, *shape]` each."""
        if len(self.parts) == 1:
            return self.parts[0]
        return tuple(np.concatenate(runs, axis=1) for runs in zip(*self.parts, strict=True))

    def answer(self, outputs: tuple[Array, ...], version: str) -> None:
        """Tell everybody who waits."""
        firsts = self.firsts.tolist()
        for caller, positions, start, stop in self.segments:
            if not caller.left:
                blobs = tuple(output[start:stop].tobytes() for output in outputs)
                caller.answered(Answers(positions, firsts[start:stop], self.length, blobs, version))
        for member, waiters in self.joined.items():
            blobs = tuple(output[member].tobytes() for output in outputs)
            for waiter in waiters:
                if not waiter.caller.left:
                    answer = Answers([waiter.position], [firsts[member]], self.length, blobs, version)
                    waiter.caller.answered(answer)


def cut(owners: Sequence[tuple[Caller, int]]) -> list[Segment]:
    """Segments of members that came from one frame each.

    Args:
        owners: The caller of each member and its position in the caller's frame.
    """
    segments: list[Segment] = []
    positions: list[int] = []
    for member, (caller, position) in enumerate(owners):
        if not segments or segments[-1].caller is not caller:
            positions = []
            segments.append(Segment(caller, positions, member, member))
        positions.append(position)
        segments[-1] = segments[-1]._replace(stop=member + 1)
    return segments


def _moved(segment: Segment, moved: dict[int, int]) -> list[Segment]:
    """What is left of a segment when its members have new positions."""
    stay = [member for member in range(segment.start, segment.stop) if member in moved]
    if not stay:
        return []
    positions = [segment.positions[member - segment.start] for member in stay]
    return [Segment(segment.caller, positions, moved[stay[0]], moved[stay[-1]] + 1)]
