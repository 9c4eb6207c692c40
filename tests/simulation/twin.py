"""A session as it should be: what was taken in, worked out by plain arithmetic, alone and in order.

A twin knows nothing of batches, rows, windows or runs. It says beforehand what a chunk must come to, and holds what
the engine shows of the session against what it would have done itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from service.errors import (
    ContentDiffersError,
    DrainingError,
    IndexUnexpectedError,
    InvalidInputError,
    QueueFullError,
    ServiceError,
    SessionClosedError,
    WindowFullError,
)
from service.kept import WINDOW_CHUNKS
from tests.fakes import FACTOR, Answer, Caller, SessionView, sequential

POISON = 500.0
"""The input that makes the state infinite."""

STEP_BYTES = 4
"""Of the answer to one step."""

Kind = type[ServiceError] | str
WAITS, REPLAYED = "waits", "replayed"


@dataclass(eq=False)
class Shared:
    """A read-only plane: of one session, and of all that were copied from it."""

    number: float = 0.0


@dataclass(eq=False)
class Chunk:
    """Steps that were taken in."""

    first: int
    values: list[float]
    numbered: bool
    outputs: list[float]
    waiters: list["Ask"] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.values)

    @property
    def poisoned(self) -> bool:
        return POISON in self.values

    @property
    def awaited(self) -> bool:
        return any(not ask.frame.left for ask in self.waiters)


class Room(NamedTuple):
    """What the server has room for."""

    chunks: int
    kept_bytes: int
    draining: bool

    def less(self, chunks: int, kept_bytes: int) -> "Room":
        return Room(self.chunks - chunks, self.kept_bytes - kept_bytes, self.draining)


class Twin:
    def __init__(
        self,
        view: SessionView,
        ttl_s: float,
        now: float,
        base: int = 0,
        state: float = 0.0,
        plane: Shared | None = None,
    ) -> None:
        self.view = view
        self.base = base
        """The index that it began with,"""
        self._base_state = state
        """and the state,"""
        self.plane = plane or Shared()
        """and what all its steps read."""
        self.factor = FACTOR
        """Of the version that takes its next chunks."""
        self.pinned = ""
        """The version that it asked for."""
        self.id = view.id
        self.ttl_s = ttl_s
        self.used = now
        self.gone: type[ServiceError] | None = None
        self.heirs: list[Twin] = []
        """Who had its id later."""
        self.chunks: list[Chunk] = []
        """Taken in, and neither failed nor dropped."""
        self.steps = base
        """Committed."""
        self.received = 0
        """What the client acknowledges with its next chunk."""
        self.forgotten = 0
        """Answers below it need not be kept any more."""

    @property
    def endings(self) -> list[type[ServiceError]]:
        """What whoever speaks of it is told: how it ended, or, by its id alone, how a later one did."""
        assert self.gone is not None
        return [self.gone, *(heir.gone or SessionClosedError for heir in self.heirs)]

    @property
    def tail(self) -> int:
        return self.chunks[-1].end if self.chunks else self.base

    @property
    def queued(self) -> list[Chunk]:
        return [chunk for chunk in self.chunks if chunk.end > self.steps]

    @property
    def unacknowledged(self) -> list[Chunk]:
        """Whoever asks for one of these again must be answered."""
        return [chunk for chunk in self.chunks if chunk.numbered and self.forgotten < chunk.end <= self.steps]

    @property
    def state(self) -> float:
        return self.state_at(self.steps)

    def state_at(self, end: int) -> float:
        """The state after a chunk that was taken in, or at the beginning."""
        return next((chunk.outputs[-1] for chunk in self.chunks if chunk.end == end), self._base_state)

    def at(self, first: int | None) -> Chunk:
        return next(chunk for chunk in self.chunks if chunk.first == first)

    def expect(self, ask: "Ask", room: Room) -> list[Kind]:
        """What may become of a chunk that comes now; usually one thing."""
        if self.gone is not None:
            return [*self.endings]
        if any(value != value for value in ask.values) or ask.acknowledged > self.steps:
            return [InvalidInputError]
        if ask.first is None or ask.first == self.tail:
            return self._expect_new(ask, room)
        known = next((one for one in self.chunks if one.numbered and one.first == ask.first), None)
        if known is None:
            return [IndexUnexpectedError]
        kinds: list[Kind] = [REPLAYED if known.end <= self.steps else WAITS]
        if known.values != ask.values:
            kinds = [ContentDiffersError]
        if known.end <= max(self.forgotten, ask.acknowledged):
            kinds.append(IndexUnexpectedError)
        return kinds

    def _expect_new(self, ask: "Ask", room: Room) -> list[Kind]:
        if room.draining:
            return [DrainingError]
        kinds: list[Kind] = [WAITS if room.chunks else QueueFullError]
        if ask.first is not None:
            # What an earlier chunk acknowledges may be forgotten only when that is committed.
            at_least, at_most = (
                sum(chunk.numbered and chunk.end > below for chunk in self.chunks)
                for below in (max(ask.acknowledged, self.forgotten), ask.acknowledged)
            )
            if at_least >= WINDOW_CHUNKS:
                return [WindowFullError]
            kinds += [WindowFullError] * (at_most >= WINDOW_CHUNKS)
            kinds += [QueueFullError] * (room.kept_bytes < STEP_BYTES * len(ask.values))
        return kinds

    def take(self, ask: "Ask") -> Chunk:
        """The chunk waits: queue it, or join it to the one that is queued."""
        for chunk in self.queued:
            if chunk.numbered and chunk.first == ask.first:
                break
        else:
            assert ask.first in (None, self.tail)
            outputs = sequential(ask.values, self.state_at(self.tail), self.factor, self.plane.number)
            chunk = Chunk(self.tail, ask.values, ask.first is not None, outputs)
            self.chunks.append(chunk)
        chunk.waiters.append(ask)
        ask.chunk = chunk
        return chunk

    def heard_of(self, ask: "Ask", now: float) -> None:
        """What a chunk says besides its inputs holds even if it is refused, unless it is nonsense."""
        if self.gone is None and ask.kind is not InvalidInputError:
            self.forgotten = max(self.forgotten, ask.acknowledged)
            self.used = now

    def drop_from(self, first: int) -> list[Chunk]:
        """A chunk came to nothing, and with it all later ones."""
        dropped = [chunk for chunk in self.chunks if chunk.first >= first]
        assert not dropped or dropped[0].first == first >= self.steps
        self.chunks = [chunk for chunk in self.chunks if chunk.first < first]
        return dropped

    def commit(self, steps: int, now: float) -> None:
        assert steps >= self.steps, "steps were undone"
        assert any(chunk.end == steps for chunk in self.chunks), "part of a chunk was committed"
        assert not any(chunk.poisoned for chunk in self.chunks if chunk.end <= steps)
        self.steps, self.used = steps, now

    def comes_back(self, view: SessionView, later_s: float) -> None:
        """Another engine goes on with what was committed."""
        self.view = view
        served = view.engine.served[0].version
        self.factor, self.pinned = FACTOR, self.pinned if self.pinned == served else ""
        self.used += later_s
        self.chunks = [chunk for chunk in self.chunks if chunk.end <= self.steps]


class Ask(Caller):
    """Somebody who sent a chunk."""

    def __init__(
        self,
        twin: Twin,
        first: int | None,
        values: list[float],
        acknowledged: int,
        told: "Callable[[Ask, Answer | ServiceError], None]",
    ) -> None:
        super().__init__(twin.view)
        self.twin = twin
        self.first = first
        self.values = values
        self.acknowledged = acknowledged
        self.chunk: Chunk | None = None
        """What it waits for, once that was taken in."""
        self.model = 0
        """Number of the version that it was sent for."""
        self._told = told

    def tell(self, outcome: Answer | ServiceError) -> None:
        assert not self.outcomes, "told twice"
        assert not self.frame.left, "told though it had left"
        super().tell(outcome)
        self._told(self, outcome)

    @property
    def kind(self) -> Kind:
        if not self.outcomes:
            return WAITS
        return REPLAYED if isinstance(self.outcomes[0], Answer) else type(self.outcomes[0])
