"""One session: its row, its index and its kept answers, which change together or not at all. Pure.

A chunk is (index of its first step, number of steps, digest of its inputs). `Session.place` decides what a chunk is
before anything runs; `Session.commit` is the only way forward. See docs/adr/0003-commit-path.md.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    ContentDiffersError,
    IndexUnexpectedError,
    InvalidInputError,
    ServiceError,
    WindowFullError,
)
from service.rows import INITIAL_ROW

WINDOW_CHUNKS = 8
WINDOW_BYTES = 1 << 20

Waiter = Callable[["Answer | ServiceError"], None]


class Answer(NamedTuple):
    """What a committed chunk gave: one blob per output, `length` steps each."""

    first: int
    length: int
    outputs: tuple[bytes, ...]


class Steps(NamedTuple):
    """A chunk as it was sent. `inputs` are in the order of the contract, `[length, *shape]` each."""

    first: int | None
    """None: the caller does not number its steps."""
    length: int
    acknowledged: int
    digest: int
    inputs: tuple[NDArray[np.generic], ...]


@dataclass(eq=False, slots=True)
class Chunk:
    """A chunk between admission and answer."""

    session: "Session"
    steps: Steps
    first: int
    queued_at: float
    waiters: list[Waiter]
    done: int = 0
    """Steps already run on the second row."""
    row: int = INITIAL_ROW
    """The second row, once there is one."""
    outputs: list[tuple[bytes, ...]] = field(default_factory=list)
    started: bool = False
    dropped: bool = False

    @property
    def end(self) -> int:
        """Index after the last step."""
        return self.first + self.steps.length

    def answer(self) -> Answer:
        """The outputs of all runs, joined."""
        parts = self.outputs
        joined = parts[0] if len(parts) == 1 else tuple(b"".join(blobs) for blobs in zip(*parts, strict=True))
        return Answer(self.first, self.steps.length, joined)


class _Kept(NamedTuple):
    digest: int
    answer: Answer
    size_bytes: int


class Session:
    """The state of one live sequence, as far as the event loop owns it."""

    __slots__ = (
        "gone",
        "id",
        "kept",
        "kept_bytes",
        "last_used",
        "model",
        "next_index",
        "owner",
        "pending",
        "row",
        "ttl_s",
    )

    def __init__(self, owner: str, session_id: str, model: str, ttl_s: float, now: float) -> None:
        self.owner = owner
        self.id = session_id
        self.model = model
        """Key of the served model: name and version."""
        self.ttl_s = ttl_s
        self.last_used = now
        self.row = INITIAL_ROW
        self.next_index = 0
        """Number of committed steps."""
        self.kept: deque[_Kept] = deque()
        self.kept_bytes = 0
        self.pending: deque[Chunk] = deque()
        """Queued chunks in order; the first may be running."""
        self.gone: ServiceError | None = None
        """Why the session is no more, once it is. Hand out `again()`."""

    @property
    def tail(self) -> int:
        """The index that the next new chunk must have."""
        return self.pending[-1].end if self.pending else self.next_index

    def acknowledge(self, index: int) -> None:
        """Forget the answers of all steps below `index`.

        Raises:
            InvalidInputError: more is acknowledged than was ever answered.
        """
        if index > self.next_index:
            raise InvalidInputError(
                f"acknowledged: expected at most {self.next_index}, the number of committed steps, got {index}"
            )
        while self.kept and self.kept[0].answer.first + self.kept[0].answer.length <= index:
            self.kept_bytes -= self.kept.popleft().size_bytes

    def forget_answers(self) -> None:
        """The session is no more: nobody may ask again."""
        self.kept.clear()
        self.kept_bytes = 0

    def place(self, steps: Steps) -> Chunk | Answer | None:
        """Decide what a chunk is.

        Returns:
            The queued or running chunk to join, the kept answer to replay, or None: the chunk is new.

        Raises:
            ContentDiffersError: the index was sent before with another content or length.
            IndexUnexpectedError: a gap, or older than what is kept.
        """
        first, tail = steps.first, self.tail
        if first is None or first == tail:
            return None
        for chunk in self.pending:
            if chunk.steps.first == first:  # a chunk that was not numbered has no name to be joined by
                self._check_same(first, chunk.steps.length, chunk.steps.digest, steps)
                return chunk
        for kept in self.kept:
            if kept.answer.first == first:
                self._check_same(first, kept.answer.length, kept.digest, steps)
                return kept.answer
        trouble = "a gap" if first > tail else "no longer kept, or not the first step of what was sent"
        raise IndexUnexpectedError(
            f"first index: expected {tail}, got {first} ({trouble})", expected_index=tail
        )

    def check_window(self, length: int, step_bytes: int) -> None:
        """Refuse a new chunk whose answer might not fit beside those that are not acknowledged.

        Raises:
            WindowFullError: acknowledge answers first.
        """
        numbered = [chunk for chunk in self.pending if chunk.steps.first is not None]
        count = len(self.kept) + len(numbered) + 1
        size = self.kept_bytes + step_bytes * (length + sum(chunk.steps.length for chunk in numbered))
        if count > WINDOW_CHUNKS or size > WINDOW_BYTES:
            raise WindowFullError(
                f"unacknowledged answers: at most {WINDOW_CHUNKS} chunks and {WINDOW_BYTES} bytes a session, "
                f"this would be number {count} and make {size} bytes; acknowledge first"
            )

    def commit(self, chunk: Chunk, now: float) -> tuple[Answer, int]:
        """Make the chunk's row the current one, move the index and keep the answer: all three or none.

        Returns:
            The answer, and the row that is free now.
        """
        answer = chunk.answer()
        self.pending.popleft()
        self.row, freed = chunk.row, self.row
        self.next_index = chunk.end
        if chunk.steps.first is not None:
            size_bytes = sum(map(len, answer.outputs))
            self.kept.append(_Kept(chunk.steps.digest, answer, size_bytes))
            self.kept_bytes += size_bytes
        self.last_used = now
        return answer, freed

    def drop_from(self, chunk: Chunk) -> list[Chunk]:
        """Take a chunk and all later ones, whose indices would leave a gap, out of the queue."""
        dropped = []
        while self.pending:
            last = self.pending.pop()
            last.dropped = True
            dropped.append(last)
            if last is chunk:
                break
        return dropped[::-1]

    def _check_same(self, first: int, length: int, digest: int, steps: Steps) -> None:
        if (length, digest) != (steps.length, steps.digest):
            raise ContentDiffersError(
                f"index {first} was sent before with other content: {length} steps then, {steps.length} now"
                + ("" if length != steps.length else ", with other inputs")
            )
