"""The client's memory of one session: which chunks are not answered yet, what to send, what to acknowledge. Pure.

Law: a chunk stays in the log from the call until it is answered or has failed for good, it is sent again on every new
connection with the same index and content, and its result is given out once. Losing connections, answers that come
twice and refusals that pass change how often it is sent, never what it gives.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(eq=False, slots=True)
class Chunk(Generic[R]):
    """Steps that were asked for and are not answered."""

    first: int
    """Index of the first step."""
    length: int
    """Number of steps, 1 or more."""
    inputs: tuple[bytes, ...]
    """One blob for each input of the contract; never changes, since the server compares contents."""
    answer_bytes: int
    """What the answer will take of the server's window."""
    reply: R
    """Whatever the caller waits on; the log does not look at it."""
    doomed: bool = False
    """Its caller was told that it failed; only the server's own answer is outstanding."""


class SessionLog(Generic[R]):
    """The unanswered chunks of one session.

    A chunk is either waiting or on the wire. After a refusal, nothing is sent until every chunk on the wire has been
    answered: the chunks behind a refused one come back refused as well, and an index whose old content is still
    under way must not be used again.
    """

    def __init__(self, next_index: int, window_chunks: int, window_bytes: int) -> None:
        self.next_index = next_index
        """Index of the next new chunk."""
        self.acknowledged = next_index
        """The answers of all steps below have been received."""
        self._window_chunks = window_chunks
        self._window_bytes = window_bytes
        self._waiting: deque[Chunk[R]] = deque()
        self._wire: dict[int, Chunk[R]] = {}
        self._wire_bytes = 0
        self._held = False

    @property
    def in_flight(self) -> int:
        """Number of chunks on the wire."""
        return len(self._wire)

    @property
    def unanswered(self) -> int:
        """Number of chunks whose callers still wait for an answer or a failure."""
        return len(self._waiting) + sum(not chunk.doomed for chunk in self._wire.values())

    @property
    def settled(self) -> bool:
        """Whether sending is held back and everything on the wire has been answered: time to `resume`."""
        return self._held and not self._wire

    @property
    def sendable(self) -> bool:
        """Whether `take` has a chunk to give: nothing is held back, and the window has room."""
        if self._held or not self._waiting:
            return False
        size_bytes = self._wire_bytes + self._waiting[0].answer_bytes
        return not self._wire or (len(self._wire) < self._window_chunks and size_bytes <= self._window_bytes)

    def add(self, length: int, inputs: tuple[bytes, ...], answer_bytes: int, reply: R) -> Chunk[R]:
        """Append a new chunk; it waits until it is taken."""
        chunk = Chunk(self.next_index, length, inputs, answer_bytes, reply)
        self.next_index += length
        self._waiting.append(chunk)
        return chunk

    def take(self) -> Chunk[R] | None:
        """The next chunk to put on the wire now, or None."""
        if not self.sendable:
            return None
        chunk = self._waiting.popleft()
        self._wire[chunk.first] = chunk
        self._wire_bytes += chunk.answer_bytes
        return chunk

    def answered(self, first: int) -> Chunk[R] | None:
        """An answer came. Returns its chunk, or None: nobody waits for it (it came twice, or was given up)."""
        chunk = self._off_the_wire(first)
        if chunk is not None:
            self.acknowledged = max(self.acknowledged, self._oldest())
        return chunk

    def refused(self, first: int) -> None:
        """The server did not take the chunk and may take it later: it waits again, in its place."""
        chunk = self._off_the_wire(first)
        if chunk is not None:
            insort(self._waiting, chunk, key=_first)
            self._held = True

    def failed(self, first: int, next_index: int | None = None) -> list[Chunk[R]]:
        """The chunk failed for good, and with it all later ones, whose indices would leave a gap.

        Args:
            first: Index of the chunk that failed.
            next_index: Index of the next new chunk; None: that of the failed one, which was not applied.

        Returns:
            The failed chunk and the later ones in order; nothing if nobody waits for it.
        """
        failed = self._off_the_wire(first)
        if failed is None:
            return []
        on_the_wire = [chunk for chunk in self._wire.values() if not chunk.doomed and chunk.first > first]
        for chunk in on_the_wire:
            chunk.doomed = True
        later = sorted((*on_the_wire, *(chunk for chunk in self._waiting if chunk.first > first)), key=_first)
        self._waiting = deque(chunk for chunk in self._waiting if chunk.first < first)
        self._held = self._held or bool(self._wire)
        self.next_index = first if next_index is None else next_index
        self.acknowledged = min(self.acknowledged, self.next_index)
        return [failed, *later]

    def unexpected(self, first: int, expected_index: int) -> list[Chunk[R]]:
        """The server expects another index. Returns what failed, as `failed` does.

        Behind a chunk that is not answered yet this is an echo of that chunk's trouble, and passes with it. For the
        oldest chunk it is the truth: the session stands elsewhere, and goes on from there.
        """
        if first == self._oldest():
            return self.failed(first, expected_index)
        self.refused(first)
        return []

    def move(self, next_index: int) -> None:
        """The session stands elsewhere by another call's doing. Only while nothing is unanswered."""
        self.next_index = self.acknowledged = next_index

    def hold(self) -> None:
        """Send nothing until `resume`."""
        self._held = True

    def resume(self) -> None:
        """Send again after a refusal. Does nothing while answers are outstanding."""
        self._held = self._held and bool(self._wire)

    def disconnected(self) -> None:
        """The connection is gone: everything that was on the wire waits to be sent again, in order."""
        alive = [chunk for chunk in self._wire.values() if not chunk.doomed]
        self._waiting = deque(sorted((*alive, *self._waiting), key=_first))
        self._wire.clear()
        self._wire_bytes = 0
        self._held = False

    def clear(self) -> list[Chunk[R]]:
        """Give up everything unanswered and return it in order."""
        self.next_index = self._oldest()
        self.disconnected()
        chunks = list(self._waiting)
        self._waiting.clear()
        return chunks

    def _off_the_wire(self, first: int) -> Chunk[R] | None:
        chunk = self._wire.pop(first, None)
        if chunk is None:
            return None
        self._wire_bytes -= chunk.answer_bytes
        return None if chunk.doomed else chunk

    def _oldest(self) -> int:
        """Index of the oldest chunk that is not answered, or of the next new one."""
        on_the_wire = next(
            (chunk.first for chunk in self._wire.values() if not chunk.doomed), self.next_index
        )
        return min(on_the_wire, self._waiting[0].first if self._waiting else self.next_index)


def _first(chunk: Chunk[R]) -> int:
    return chunk.first
