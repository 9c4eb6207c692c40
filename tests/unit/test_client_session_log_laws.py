"""The log of a session, driven through every kind of trouble against a server that keeps the rules."""

from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.client.session_log import Chunk, SessionLog

WINDOW = 3

Log = SessionLog[list[str]]
Sent = Chunk[list[str]]


class Message(NamedTuple):
    first: int
    length: int
    content: bytes
    acknowledged: int


class Server:
    """What the wire promises, for one session. `hostile` contents always fail."""

    def __init__(self, hostile: set[bytes], strict: bool) -> None:
        self.hostile = hostile
        self.strict = strict
        """A window overrun is a mistake of the client, not a refusal."""
        self.applied: list[bytes] = []
        self.next_index = 0
        self.kept: dict[int, Message] = {}

    def take(self, message: Message, busy: bool) -> tuple[str, int]:
        assert message.acknowledged <= self.next_index, "acknowledged what was never answered"
        self.kept = {
            first: kept for first, kept in self.kept.items() if first + kept.length > message.acknowledged
        }
        kept = self.kept.get(message.first)
        if kept is not None:
            assert kept.content == message.content, "an index came with another content"
            return "done", message.first
        if message.first != self.next_index:
            return "unexpected", self.next_index
        if busy:
            return "busy", message.first
        if message.content in self.hostile:
            return "failed", message.first
        if len(self.kept) >= WINDOW:
            assert not self.strict, "the window was overrun"
            return "busy", message.first
        self.kept[message.first] = message
        self.next_index += message.length
        self.applied.append(message.content)
        return "done", message.first


class World:
    """A log, a server, and a connection between them that the test plays on."""

    def __init__(self, hostile: set[bytes], in_order: bool) -> None:
        self.in_order = in_order
        self.log = Log(0, WINDOW, 1 << 20)
        self.server = Server(hostile, strict=in_order)
        self.requests: deque[Message] = deque()
        self.answers: deque[tuple[Message, tuple[str, int]]] = deque()
        self.late: deque[Message] = deque()
        self.chunks: list[Sent] = []

    def add(self, length: int) -> None:
        content = b"chunk %d" % len(self.chunks)
        self.chunks.append(self.log.add(length, (content,), length, []))

    def burst(self, count: int) -> None:
        """Make some chunks and put on the wire what may go."""
        for _ in range(count):
            self.add(1)
            self.send()

    def send(self) -> None:
        chunk = self.log.take()
        if chunk is not None:
            self.requests.append(Message(chunk.first, chunk.length, chunk.inputs[0], self.log.acknowledged))

    def serve(self, busy: bool = False) -> None:
        if self.requests:
            message = self.requests.popleft()
            self.answers.append((message, self.server.take(message, busy)))

    def deliver(self, position: int = 0, twice: bool = False) -> None:
        """Hear an answer. `position` lets it overtake others: a server never does that, and a log can bear it."""
        if not self.answers:
            return
        position = 0 if self.in_order else position % len(self.answers)
        message, (verdict, index) = self.answers[position]
        del self.answers[position]
        for _ in range(2 if twice else 1):
            self._hear(message, verdict, index)
        if self.log.settled:
            self.log.resume()

    def _hear(self, message: Message, verdict: str, index: int) -> None:
        if verdict == "done":
            chunk = self.log.answered(message.first)
            if chunk is not None:
                assert chunk.inputs[0] == message.content, "an answer reached another chunk"
                chunk.reply.append("done")
        elif verdict == "busy":
            self.log.refused(message.first)
        elif verdict == "failed":
            fail(self.log.failed(message.first))
        else:
            fail(self.log.unexpected(message.first, index))

    def disconnect(self, served: int) -> None:
        """The server still gets some of what was sent; nobody hears its answers."""
        for _ in range(min(served, len(self.requests))):
            self.serve()
        self.late.extend(self.requests)
        self.requests.clear()
        self.answers.clear()
        self.log.disconnected()

    def arrive_late(self) -> None:
        """Something that was sent over a connection long given up reaches the server after all."""
        if self.late:
            self.server.take(self.late.popleft(), busy=False)

    def finish(self) -> None:
        for _ in range(1000):
            if not self.log.unanswered and not self.log.in_flight:
                return
            self.send()
            self.serve()
            self.deliver()
        pytest.fail("chunks were left without an answer")


def fail(chunks: list[Sent]) -> None:
    for chunk in chunks:
        chunk.reply.append("failed")


play = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("burst"), st.integers(1, 5)),
        st.tuples(st.just("send")),
        st.tuples(st.just("serve"), st.booleans()),
        st.tuples(st.just("deliver"), st.sampled_from([0, 0, 1, 2]), st.booleans()),
        st.tuples(st.just("disconnect"), st.integers(0, 4)),
        st.tuples(st.just("arrive_late")),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(play, st.booleans())
def test_every_chunk_is_applied_once_in_order_and_answered_once(
    moves: list[tuple[str, int]], in_order: bool
) -> None:
    world = World(set(), in_order)
    for name, *arguments in moves:
        getattr(world, name)(*arguments)
    world.finish()
    assert [chunk.reply for chunk in world.chunks] == [["done"]] * len(world.chunks)
    assert world.server.applied == [chunk.inputs[0] for chunk in world.chunks]
    assert world.log.acknowledged == world.log.next_index == world.server.next_index


@settings(max_examples=300, deadline=None)
@given(play, st.sets(st.integers(0, 20)), st.booleans())
def test_what_failed_was_not_applied_and_what_was_answered_was(
    moves: list[tuple[str, int]], hostile: set[int], in_order: bool
) -> None:
    world = World({b"chunk %d" % number for number in hostile}, in_order)
    for name, *arguments in moves:
        if (
            name != "arrive_late"
        ):  # an index may be used again after a failure; see the client's documentation
            getattr(world, name)(*arguments)
    world.finish()
    assert all(len(chunk.reply) == 1 for chunk in world.chunks)
    assert world.server.applied == [chunk.inputs[0] for chunk in world.chunks if chunk.reply == ["done"]]
    assert world.log.acknowledged == world.log.next_index == world.server.next_index
