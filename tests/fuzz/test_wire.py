"""Frames that nobody should send, and bytes that are no frames: the server lives on, and so does who behaves.

Hypothesis builds whole conversations, right ones among them; the bytes go over a generic stream, so that no stub
stands in the way.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from service.errors import SessionClosedError
from service.kept import WINDOW_CHUNKS
from service.server import Server, start_server
from service.settings import Settings
from service.status import STATUS
from tests.wire import V, answers, attach, converse, open_session, steps

SERVICE = "/carousel.v1.Carousel/"
SESSIONS = 4
REFUSALS = {code for code, _ in STATUS.values()} - {grpc.StatusCode.INTERNAL}

# -- what is sent -------------------------------------------------------------------------------------------------

small = st.integers(0, 6)
names = st.sampled_from([*(f"s{k}" for k in range(SESSIONS)), "nobody", "", "\n", "x" * 500])
uint32 = st.one_of(small, st.integers(0, 2**32 - 1))
uint64 = st.one_of(small, st.integers(0, 2**64 - 1), st.sampled_from([2**63 - 1, 2**63, 2**64 - 1]))
right_token = st.integers(0, V - 1)
any_token = st.one_of(right_token, right_token, st.sampled_from([V, -1, 2**63 - 1, -(2**63)]))
attaches = st.lists(names, max_size=4).map(lambda ids: pb.StreamRequest(attach=pb.Attach(sessions=ids)))


@st.composite
def right_frames(draw: Any, tails: list[int]) -> pb.StreamRequest:
    """The next chunks of some sessions, as many as they are attached with handles from 0."""
    handles = draw(st.lists(st.sampled_from(range(len(tails))), min_size=1, max_size=6))
    firsts, chunks, acknowledged = [], [], list(tails)
    for handle in handles:
        chunks.append(draw(st.lists(right_token, min_size=1, max_size=4)))
        firsts.append(tails[handle])
        tails[handle] += len(chunks[-1])
    received = draw(st.sampled_from([[], [0] * len(handles), [acknowledged[handle] for handle in handles]]))
    return steps(handles, firsts, chunks, received)


@st.composite
def odd_frames(draw: Any) -> pb.StreamRequest:
    """A frame of which anything may be wrong, and often little is."""
    handles = draw(st.lists(st.one_of(small, small, uint32), max_size=6))
    count = len(handles)
    column = st.one_of(st.just([]), st.lists(uint64, min_size=count, max_size=count))
    few = st.lists(st.integers(1, 4), min_size=count, max_size=count)
    lengths = draw(st.one_of(st.just([]), few, few, few, st.lists(uint32, max_size=6)))
    return pb.StreamRequest(
        steps=pb.StepFrame(
            handles=handles,
            first_indices=draw(st.one_of(column, column, st.lists(small, max_size=6))),
            lengths=lengths,
            acknowledged=draw(column),
            inputs=draw(odd_tensors(min(sum(lengths or [1] * count), 64))),
        )
    )


@st.composite
def odd_tensors(draw: Any, count: int) -> list[pb.Tensor]:
    """Mostly one tensor of `count` tokens."""
    values = draw(st.lists(any_token, min_size=count, max_size=count))
    whole = pb.Tensor(name="tokens", data=np.array(values, "<i8").tobytes())
    other = pb.Tensor(name=draw(st.sampled_from(["", "x", "tokens"])), data=draw(st.binary(max_size=40)))
    few = st.sampled_from([[], [other], [whole, other], [whole, whole]])
    return draw(st.one_of(st.just([whole]), st.just([whole]), st.just([whole]), few))


@st.composite
def damaged(draw: Any, message: bytes) -> bytes:
    """Some bytes changed, lost or put in."""
    changed = bytearray(message)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(changed)))
        changed[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(changed)


@st.composite
def conversations(draw: Any) -> list[bytes]:
    """A stream that attaches three sessions and goes on well, until it does not."""
    said, tails = [attach("s0", "s1", "s2").SerializeToString()], [0, 0, 0]
    for kind in draw(st.lists(st.integers(0, 9), max_size=10)):
        if kind < 4:
            said.append(draw(right_frames(tails)).SerializeToString())
        elif kind == 4:
            said.append(draw(st.sampled_from(said)))
        elif kind == 5:
            said.append(draw(attaches).SerializeToString())
        elif kind < 9:
            said.append(draw(odd_frames()).SerializeToString())
        else:
            said.append(draw(st.one_of(damaged(draw(st.sampled_from(said))), st.binary(max_size=30))))
    return said


calls = st.one_of(
    st.tuples(
        st.just("Step"),
        st.builds(
            pb.StepRequest,
            session=names,
            first_index=st.one_of(st.none(), uint64),
            length=st.one_of(st.just(0), uint32),
            acknowledged=st.one_of(st.just(0), uint64),
            inputs=odd_tensors(1),
        ),
    ),
    st.tuples(
        st.just("Open"),
        st.builds(
            pb.OpenRequest,
            model=st.sampled_from(["tiny", "tiny", "none", ""]),
            version=st.sampled_from(["", "1", "9", "x"]),
            session=names,
            request_id=st.sampled_from(["", "a", "b", "\0", "y" * 200]),
            time_to_live_s=st.one_of(st.just(0.0), st.floats()),
        ),
    ),
    st.tuples(st.just("Describe"), st.builds(pb.DescribeRequest, session=names)),
    st.tuples(st.just("Close"), st.builds(pb.CloseRequest, session=names)),
    st.tuples(st.just("ListModels"), st.just(pb.ListModelsRequest())),
).map(lambda call: (call[0], call[1].SerializeToString()))
unreadable = st.tuples(st.sampled_from(["Step", "Open", "Describe", "Close"]), st.binary(max_size=40))


# -- a server, and somebody who behaves ---------------------------------------------------------------------------


class Beside:
    """A server, a session that is stepped well throughout, and sessions for the others to ill-treat."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server, channel: grpc.aio.Channel) -> None:
        self.loop = loop
        self.server = server
        self.channel = channel
        self.stub = CarouselStub(channel)
        self.tokens: list[int] = []
        self.logits: list[np.ndarray] = []

    async def begin(self) -> None:
        self.stream = self.stub.Stream()
        await self.stream.write(attach(await open_session(self.stub, session="witness")))
        await self.stream.read()

    async def step(self) -> None:
        index = len(self.tokens)
        self.tokens.append(index * 7 % V)
        await self.stream.write(steps([0], [index], [self.tokens[-1:]], [index]))
        self.logits.append(answers([await self.stream.read()])[0, index])

    async def open(self) -> None:
        for k in range(SESSIONS):
            await open_session(self.stub, session=f"s{k}")

    async def check(self) -> None:
        """Nothing of the last conversation is left, once its sessions are closed; whoever behaves is served."""
        engine = self.server.engine
        async with asyncio.timeout(10):
            while engine.queue.chunks or engine.unread_bytes:
                await asyncio.sleep(0.001)
        for slot in engine.table.of_model(0).tolist():
            if engine.table.id_of(slot) != "witness":
                engine.end(slot, SessionClosedError)
        await self.step()
        assert engine.queue.promised_bytes == 0
        assert engine.served[0].rows.used == len(engine.table) == 1
        assert engine.kept.total_bytes <= WINDOW_CHUNKS * 4 * V
        registry = self.server.metrics.registry
        assert registry.get_sample_value("carousel_streams") == 1
        refused = {sample.labels["code"] for sample in self.server.metrics.requests.collect()[0].samples}
        assert not refused & {"INTERNAL", "UNKNOWN"}

    async def end(self) -> None:
        """The well-behaved session ends as if it had been alone."""
        whole = await converse(
            self.stub, attach(await open_session(self.stub)), steps([0], [0], [self.tokens[:1000]])
        )
        np.testing.assert_array_equal(np.concatenate(self.logits[:1000]), answers(whole)[0, 0])
        self.stream.cancel()


@pytest.fixture(scope="module")
def beside(repository: Path) -> Iterator[Beside]:
    with asyncio.Runner() as runner:
        server = runner.run(
            start_server(Settings.load({"models": repository, "grpc_port": 0, "http_port": 0}))
        )

        async def connect() -> Beside:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}")
            made = Beside(runner.get_loop(), server, channel)
            await made.begin()
            return made

        made = runner.run(connect())
        yield made
        runner.run(made.end())
        runner.run(made.channel.close())
        runner.run(server.stop())


# -- laws ---------------------------------------------------------------------------------------------------------


async def say(beside: Beside, said: list[bytes]) -> None:
    await beside.open()
    call: Any = beside.channel.stream_stream(f"{SERVICE}Stream")()
    try:
        for message in said:
            await call.write(message)
        await call.done_writing()
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        pass  # the server has ended the stream already, and the status says how
    heard = []
    async with asyncio.timeout(20):
        try:
            async for message in call:
                heard.append(pb.StreamResponse.FromString(message))  # noqa: PERF401 - what came before an error counts
        except grpc.aio.AioRpcError:
            pass  # its code is looked at below
        code = await call.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), await call.details()
    check_outcomes(said, heard, ended_well=code is grpc.StatusCode.OK)
    await beside.check()


def check_outcomes(said: list[bytes], heard: list[pb.StreamResponse], *, ended_well: bool) -> None:
    """Every chunk has one outcome, unless a frame ended the stream; then those before it have one at most."""
    requests = [parsed(message) for message in said]
    if ended_well:
        assert None not in requests
    asked = Counter(handle for request in requests if request for handle in request.steps.handles)
    told = Counter(handle for response in heard for handle in response.answers.handles)
    attached = sum(response.HasField("attached") for response in heard)
    if ended_well:
        assert told == asked
        assert attached == sum(request.HasField("attach") for request in requests if request)
    else:
        assert told <= asked
    for response in heard:
        frame = response.answers
        refused = {error.position: error for error in frame.errors}
        assert [length == 0 for length in frame.lengths] == [k in refused for k in range(len(frame.lengths))]
        assert all(error.code not in (0, 2, 13) and error.message for error in frame.errors)
        assert sum(len(tensor.data) for tensor in frame.outputs) == 4 * V * sum(frame.lengths)


def parsed(message: bytes) -> pb.StreamRequest | None:
    try:
        return pb.StreamRequest.FromString(message)
    except DecodeError:
        return None


async def ask(beside: Beside, asked: list[tuple[str, bytes]]) -> None:
    await beside.open()
    for method, message in asked:
        call: Any = beside.channel.unary_unary(f"{SERVICE}{method}")(message, timeout=20)
        code = await call.code()
        assert code is grpc.StatusCode.OK or code in REFUSALS, await call.details()
    await beside.check()


checked = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@settings(checked, max_examples=150)
@given(said=conversations())
def test_whatever_is_said_on_a_stream_harms_nobody(beside: Beside, said: list[bytes]) -> None:
    beside.loop.run_until_complete(say(beside, said))


@settings(checked, max_examples=60)
@given(asked=st.lists(st.one_of(calls, unreadable), max_size=6))
def test_whatever_is_asked_by_a_call_harms_nobody(beside: Beside, asked: list[tuple[str, bytes]]) -> None:
    beside.loop.run_until_complete(ask(beside, asked))


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(checked, max_examples=6_000)
@given(said=conversations(), asked=st.lists(st.one_of(calls, unreadable), max_size=2))
def test_whatever_is_said_for_minutes_harms_nobody(
    beside: Beside, said: list[bytes], asked: list[tuple[str, bytes]]
) -> None:
    beside.loop.run_until_complete(say(beside, said))
    beside.loop.run_until_complete(ask(beside, asked))
