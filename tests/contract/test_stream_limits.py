"""What one stream may ask for, and what it leaves behind: over a real server, and over a line that the test holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from service import frame, handles, stream
from service.errors import InvalidInputError, SessionClosedError
from service.identity import ANONYMOUS
from service.stream import StreamCall
from tests.fakes import Harness, sequential
from tests.ports_model import serving
from tests.wire import V, answers, attach, converse, errors, open_session, steps


class Line:
    """The server's end of a stream. The test sends requests and decides when the client reads."""

    def __init__(self) -> None:
        self.taken = 0
        """Requests that the server has read."""
        self.written: list[pb.StreamResponse] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._requests: asyncio.Queue = asyncio.Queue()

    def send(self, *requests: object) -> None:
        for request in requests:
            self._requests.put_nowait(request)

    async def read(self) -> object:
        request = await self._requests.get()
        self.taken += 1
        return request

    async def write(self, response: pb.StreamResponse) -> None:
        await self.reads.wait()
        self.written.append(response)

    @property
    def frames(self) -> list[pb.AnswerFrame]:
        return [response.answers for response in self.written if response.HasField("answers")]


@asynccontextmanager
async def on_a_line(h: Harness) -> AsyncIterator[tuple[Line, StreamCall, asyncio.Task]]:
    line = Line()
    call = StreamCall(h.engine, h.metrics, ANONYMOUS, line)
    running = asyncio.create_task(call.run())
    try:
        yield line, call, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def turn(h: Harness | None = None) -> None:
    """Let the stream, and the engine if given, do all they can without the client."""
    for _ in range(100):
        await asyncio.sleep(0)
        if h is not None:
            h.settle()


def sums(handles: list[int], firsts: list[int], chunks: list[list[float]]) -> pb.StreamRequest:
    """A frame for the fake model; without first indices its steps are not numbered."""
    x = pb.Tensor(name="x", data=np.array([value for chunk in chunks for value in chunk], "<f4").tobytes())
    lengths = [len(chunk) for chunk in chunks]
    return pb.StreamRequest(
        steps=pb.StepFrame(handles=handles, first_indices=firsts, lengths=lengths, inputs=[x])
    )


def values(frame: pb.AnswerFrame) -> list[float]:
    return np.frombuffer(frame.outputs[0].data, "<f4").tolist() if frame.outputs else []


def all_values(line: Line) -> list[float]:
    return [value for frame in line.frames for value in values(frame)]


# -- handles ------------------------------------------------------------------------------------------------------


async def test_handles_go_on_where_the_last_attach_ended(stub) -> None:
    first, second, third = [await open_session(stub) for _ in range(3)]
    await converse(stub, attach(third), steps([0], [0], [[1, 2]]))
    responses = await converse(
        stub, attach(first, "nobody", second), attach(third), attach(), steps([3, 0], [2, 0], [[3], [4]])
    )
    attached = [response.attached for response in responses if response.HasField("attached")]
    assert [(one.first_handle, list(one.next_indices)) for one in attached] == [
        (0, [0, 0, 0]),
        (3, [2]),
        (4, []),
    ]
    assert set(answers(responses)) == {(3, 2), (0, 0)}
    described = [await stub.Describe(pb.DescribeRequest(session=one)) for one in (first, second, third)]
    assert [one.next_index for one in described] == [1, 0, 3]


async def test_one_attach_takes_as_many_sessions_as_a_frame_takes_chunks(stub, monkeypatch) -> None:
    monkeypatch.setattr(stream, "STREAM_CHUNKS", 3)
    (response,) = await converse(stub, attach(*"abc"))
    assert len(response.attached.errors) == 3
    with pytest.raises(grpc.aio.AioRpcError, match="at most 3 sessions") as caught:
        await converse(stub, attach(*"abcd"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_has_so_many_handles_and_no_more(stub, monkeypatch) -> None:
    monkeypatch.setattr(handles, "STREAM_HANDLES", 3)
    responses = await converse(stub, attach("a", "b"), attach("c"))
    assert [response.attached.first_handle for response in responses] == [0, 2]
    with pytest.raises(grpc.aio.AioRpcError, match="at most 3 handles") as caught:
        await converse(stub, attach("a", "b"), attach("c", "d"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_frame_of_more_chunks_than_a_stream_may_have_ends_the_stream(stub, monkeypatch) -> None:
    monkeypatch.setattr(stream, "STREAM_CHUNKS", 3)
    session = await open_session(stub)
    responses = await converse(stub, attach(session), steps([0] * 3, [0, 1, 2], [[1]] * 3))
    assert len(answers(responses)) == 3
    with pytest.raises(grpc.aio.AioRpcError, match="at most 3 chunks, got 4") as caught:
        await converse(stub, attach(session), steps([0] * 4, [3, 4, 5, 6], [[1]] * 4))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# -- what a client does not read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "number"),
    [("STREAM_CHUNKS", 4), ("STREAM_BYTES", 4 * 8), ("STREAM_CHUNKS", 3), ("STREAM_BYTES", 4 * 8 - 1)],
)
async def test_no_frame_is_taken_while_too_much_has_not_been_read(monkeypatch, limit, number) -> None:
    monkeypatch.setattr(stream, limit, number)
    h = Harness()
    session = h.open()
    async with on_a_line(h) as (line, _, running):
        line.send(attach(session.id))
        await turn(h)
        line.reads.clear()
        line.send(*[sums([0, 0], [], [[1, 1], [1, 1]])] * 10, grpc.aio.EOF)
        await turn(h)
        assert line.taken == 1 + 2
        assert session.next_index == 8
        line.reads.set()
        await turn(h)
        await running
    assert line.taken == 12
    assert all_values(line) == sequential([1] * 40)


async def test_chunks_that_wait_for_a_run_count_as_not_read(monkeypatch) -> None:
    monkeypatch.setattr(stream, "STREAM_CHUNKS", 4)
    h = Harness()
    async with on_a_line(h) as (line, _, _):
        line.send(attach(h.open().id), *[sums([0, 0], [], [[1], [1]])] * 10)
        await turn()
        assert line.taken == 1 + 2
        h.engine.admit_offered()
        assert h.engine.queue.chunks == 4
        await turn()
        assert line.taken == 1 + 2


@pytest.mark.parametrize(("sessions", "taken"), [(0, 4), (1, 2), (3, 1)])
async def test_an_attach_that_has_not_been_read_counts_as_one_more_than_its_sessions(
    monkeypatch, sessions: int, taken: int
) -> None:
    monkeypatch.setattr(stream, "STREAM_CHUNKS", 4)
    h = Harness()
    async with on_a_line(h) as (line, _, running):
        line.reads.clear()
        line.send(*[attach(*["nobody"] * sessions)] * 9, grpc.aio.EOF)
        await turn(h)
        assert line.taken == taken
        line.reads.set()
        await turn(h)
        await running
    assert [response.attached.first_handle for response in line.written] == [k * sessions for k in range(9)]


async def test_what_the_server_keeps_for_all_clients_is_bounded_until_they_acknowledge(repository) -> None:
    async with serving(repository, max_kept_bytes=1 << 20, max_batch=1) as (_, stub):
        greedy, other = await open_session(stub), await open_session(stub)
        third = (1 << 20) // (3 * V * 4)  # steps whose answers fill a third of it
        chunk = [1] * third
        responses = await converse(
            stub, attach(greedy), *[steps([0], [k * third], [chunk]) for k in range(3)]
        )
        assert len(answers(responses)) == 3
        (error,) = errors(await converse(stub, attach(other), steps([0], [0], [chunk]))).values()
        assert error.reason == Reason.QUEUE_FULL
        assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert f"at most {1 << 20}" in error.message
        await converse(stub, attach(greedy), steps([0], [3 * third], [[1]], [3 * third]))
        assert answers(await converse(stub, attach(other), steps([0], [0], [chunk])))


# -- answers ------------------------------------------------------------------------------------------------------


async def test_answers_are_cut_into_frames_by_size_and_keep_their_order(monkeypatch) -> None:
    monkeypatch.setattr(frame, "FRAME_BYTES", 8)
    h = Harness()
    session = h.open()
    async with on_a_line(h) as (line, _, _):
        line.reads.clear()
        line.send(attach(session.id))
        first = 0
        for length in (1, 1, 1, 2, 3, 1):
            line.send(sums([0], [first], [[1] * length]))
            first += length
        await turn(h)
        line.reads.set()
        await turn(h)
    # A step is 4 bytes: a frame is full with the answer that brings it to 8, and the last need not be.
    assert [list(frame.lengths) for frame in line.frames] == [[1, 1], [1, 2], [3], [1]]
    assert [list(frame.first_indices) for frame in line.frames] == [[0, 1], [2, 3], [5], [8]]
    assert [len(values(frame)) for frame in line.frames] == [2, 3, 3, 1]
    assert all_values(line) == sequential([1] * 9)


async def test_answers_of_another_model_or_of_none_cut_a_frame_keep_the_order_and_attaches_go_first() -> None:
    h = Harness()
    session = h.open()
    async with on_a_line(h) as (line, _, _):
        line.reads.clear()
        line.send(attach(session.id, "nobody"))
        await turn(h)
        for request in (
            sums([0], [0], [[1]]),
            sums([0], [1], [[1]]),
            sums([1], [0], [[1]]),
            sums([0], [2], [[1]]),
            attach(session.id),
            sums([2], [3], [[1]]),
            sums([2], [9], [[1]]),
        ):
            line.send(request)
            await turn(h)
        line.reads.set()
        await turn(h)
    seen = [
        f"attached {response.attached.first_handle}"
        if response.HasField("attached")
        else (response.answers.model, response.answers.version, list(response.answers.handles))
        for response in line.written
    ]
    fake = ("fake", "1")
    assert seen == [
        "attached 0",
        "attached 2",
        (*fake, [0, 0]),
        ("", "", [1]),
        (*fake, [0, 2, 2]),
    ]
    assert all_values(line) == sequential([1] * 4)


async def test_every_refused_chunk_is_counted_by_its_reason_and_named_at_its_place() -> None:
    h = Harness()
    session, closed = h.open(), h.open()
    async with on_a_line(h) as (line, _, _):
        line.send(attach(session.id, "nobody", closed.id))
        await turn(h)
        closed.end(SessionClosedError)
        chunks: list[list[float]] = [[1], [1], [1], [float("nan")], [1], [1]]
        line.send(sums([0, 1, 2, 0, 9, 0], [0, 0, 0, 1, 0, 5], chunks))
        await turn(h)
    found = errors(line.written)
    reasons = {key: error.reason for key, error in found.items()}
    assert reasons == {
        (1, 0): Reason.SESSION_NOT_FOUND,
        (2, 0): Reason.SESSION_CLOSED,
        (0, 1): Reason.INVALID_INPUT,
        (9, 0): Reason.INVALID_INPUT,
        (0, 5): Reason.INDEX_UNEXPECTED,
    }
    counted = {
        name: h.metric("carousel_refused_total", reason=name)
        for name in ("SESSION_NOT_FOUND", "SESSION_CLOSED", "INVALID_INPUT", "INDEX_UNEXPECTED")
    }
    assert counted == {"SESSION_NOT_FOUND": 1, "SESSION_CLOSED": 1, "INVALID_INPUT": 2, "INDEX_UNEXPECTED": 1}
    assert all_values(line) == [1]


async def test_a_stream_remembers_nothing_of_chunks_that_were_answered() -> None:
    h = Harness()
    sessions = [h.open() for _ in range(4)]
    async with on_a_line(h) as (line, call, _):
        line.send(attach(*(session.id for session in sessions)))
        for index in range(50):
            line.send(sums([0, 1, 2, 3], [], [[index]] * 4), sums([0], [999], [[1]]))
            await turn(h)
            assert not call._waiting
            assert not call._out
        assert (call._open_chunks, call._open_bytes) == (0, 0)
    assert [session.next_index for session in sessions] == [50] * 4


# -- clients that leave -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["it vanishes", "it sends a frame that cannot be taken apart"])
async def test_the_queued_chunks_of_a_client_that_is_gone_are_dropped_and_its_running_one_commits(
    how: str,
) -> None:
    h = Harness()
    session, mate = h.open(), h.open()
    async with on_a_line(h) as (line, _, running):
        line.send(attach(session.id))
        line.send(*[sums([0], [index], [[index + 1]]) for index in range(4)])
        await turn()
        other = h.send(mate, 0, [5])
        h.start_run()
        assert h.engine.queue.chunks == 5
        if how == "it vanishes":
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        else:
            line.send(sums([0], [4, 5], [[1]]))
            with pytest.raises(InvalidInputError, match="first_indices"):
                await running
    assert h.engine.queue.chunks == 2
    assert h.metric("carousel_dropped_chunks_total") == 3
    # Last first: none of them is told of a gap that another one left.
    assert h.metric("carousel_refused_total", reason="INDEX_UNEXPECTED") == 0
    h.settle()
    assert session.next_index == 1
    assert other.answer == [5]
    again = h.send(session, 1, [2])
    h.settle()
    assert again.answer == sequential([1, 2])[1:]


async def test_a_client_that_vanishes_takes_no_chunk_that_another_stream_waits_for() -> None:
    h = Harness()
    session = h.open()
    async with on_a_line(h) as (stays, _, _):
        async with on_a_line(h) as (leaves, _, _):
            for line in (leaves, stays):
                line.send(attach(session.id), sums([0], [0], [[3]]), sums([0], [1], [[4]]))
                await turn()
                h.engine.admit_offered()
            leaves.send(sums([0], [2], [[5]]))
            await turn()
            h.engine.admit_offered()
            assert h.engine.queue.chunks == 3
        assert h.engine.queue.chunks == 2
        await turn(h)
        assert all_values(stays) == sequential([3, 4])
        assert not leaves.frames
