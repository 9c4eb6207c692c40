"""Clients that do not read, vanish without a word, or want everything: memory is bounded and others are served."""

import asyncio
import itertools
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from bench.proxy import CuttableProxy
from carousel.client import AsyncClient, channel
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.carousel_pb2_grpc import CarouselStub
from service import grpc_port, stream
from service.handles import Handles
from service.identity import ANONYMOUS
from service.server import Server, start_server
from service.settings import Settings
from service.stream import StreamCall
from tests.fakes import Harness
from tests.wire import V, answers, attach, converse, open_session, steps, tokens

MEGABYTE = 1 << 20
SLOW = ("grpc.http2.ping_timeout_ms", "grpc.keepalive_time_ms")


@asynccontextmanager
async def serving(repository: Path, **settings: object) -> AsyncIterator[Server]:
    server = await start_server(
        Settings.load({"models": repository, "grpc_port": 0, "http_port": 0} | settings)
    )
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def stub_of(port: int) -> AsyncIterator[Any]:
    """A connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield CarouselStub(channel)


async def is_served(server: Server, length: int = 50) -> None:
    """A session of somebody else makes its steps, and they are right."""
    values = [k % V for k in range(length)]
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        session, whole = await client.open("tiny"), await client.open("tiny")
        one_by_one = [(await session.step(np.array([value])))["logits"][0] for value in values]
        np.testing.assert_array_equal(one_by_one, (await whole.step(np.array(values)))["logits"])


async def test_any_number_of_streams_that_nobody_reads_take_so_much_memory_and_no_more(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAM_BYTES", 4 * MEGABYTE)
    monkeypatch.setattr(stream, "ALL_STREAMS_BYTES", 10 * MEGABYTE)
    frame_bytes, streams = 64 * 128 * 4 * V, 8

    async def flood(stub: Any) -> None:
        call = stub.Stream()
        await call.write(attach(*[await open_session(stub) for _ in range(64)]))
        frame = pb.StepFrame(handles=range(64), lengths=[128] * 64, inputs=tokens(*[1] * 128 * 64))
        for _ in itertools.count():
            await call.write(pb.StreamRequest(steps=frame))

    async with stub_of(server.grpc_port) as stub:
        floods = [asyncio.create_task(flood(stub)) for _ in range(streams)]
        peak, engine = 0, server.engine
        while (taken := engine.unread_bytes) > peak or taken < 10 * MEGABYTE:
            peak = max(peak, taken)
            await asyncio.sleep(0.2)
        await is_served(server)
        assert engine.unread_bytes <= 10 * MEGABYTE + streams * frame_bytes
        assert not any(one.done() for one in floods)
        for one in floods:
            one.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
    async with asyncio.timeout(10):
        while engine.unread_bytes or engine.queue.chunks:
            await asyncio.sleep(0.01)


async def test_inputs_that_wait_count_as_what_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STREAM_BYTES", 1000)
    h = Harness()
    monkeypatch.setitem(h.model.__dict__, "held_bytes", 100)  # as if a step were 100 bytes in, and 4 out
    frame = pb.StepFrame(handles=[0], lengths=[5], inputs=[pb.Tensor(name="x", data=bytes(20))])
    line = Line([attach(h.open().id), *[pb.StreamRequest(steps=frame)] * 10])
    running = asyncio.create_task(StreamCall(h.engine, h.metrics, ANONYMOUS, line).run())
    await asyncio.sleep(0.01)
    assert len(line.requests) == 10 - 2
    assert h.engine.unread_bytes == 1000
    while line.requests:
        h.settle()
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert h.engine.unread_bytes == 0


class Line:
    """The server's end of a stream whose client has said all it will, and reads."""

    def __init__(self, requests: list[pb.StreamRequest]) -> None:
        self.requests = requests

    async def read(self) -> pb.StreamRequest:
        return self.requests.pop(0) if self.requests else await asyncio.get_running_loop().create_future()

    async def write(self, response: pb.StreamResponse) -> None:
        pass


def test_ids_as_long_as_messages_are_not_remembered() -> None:
    h, one_megabyte = Harness(), "x" * MEGABYTE
    handles = Handles(h.engine, "anonymous")
    tracemalloc.start()
    for k in range(50):
        handles.attach(pb.Attach(sessions=[f"{k}{one_megabyte}"]))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < MEGABYTE
    assert "expected at most 128 characters" in str(handles.why_not(49))


async def test_a_connection_that_falls_silent_is_given_up_and_its_session_goes_on_elsewhere(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = grpc_port._options
    monkeypatch.setattr(grpc_port, "_options", lambda given: impatient(usual(given)))
    async with (
        serving(repository) as server,
        CuttableProxy(server.grpc_port) as proxy,
        stub_of(server.grpc_port) as stub,
        stub_of(proxy.port) as silent,
    ):
        session = await open_session(stub)
        call = silent.Stream()
        await call.write(attach(session))
        await call.write(steps([0], [0], [[1, 2]]))
        while not answers([await call.read()]):
            pass
        assert server.metrics.registry.get_sample_value("carousel_streams") == 1
        proxy.freeze()
        await call.write(steps([0], [2], [[3]]))
        async with asyncio.timeout(10):
            while server.metrics.registry.get_sample_value("carousel_streams"):
                await asyncio.sleep(0.01)
        again = answers(await converse(stub, attach(session), steps([0], [2], [[3]])))
        assert set(again) == {(0, 2)}
        call.cancel()


async def test_a_client_whose_connection_falls_silent_makes_another(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_OPTIONS", impatient(channel._OPTIONS))
    async with CuttableProxy(server.grpc_port) as proxy, AsyncClient(f"127.0.0.1:{proxy.port}") as client:
        session = await client.open("tiny")
        await session.step(np.array([1]))
        proxy.freeze()
        await session.step(np.array([2]), timeout_s=10)
        assert proxy.accepted == 2


def impatient(options: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The same options with a fifth of a second where they say many."""
    return [(name, 200 if name in SLOW else value) for name, value in options]


async def test_a_flood_of_opens_fills_the_server_is_told_the_limit_and_stops_no_step(
    repository: Path,
) -> None:
    async with (
        serving(repository, max_sessions=40) as server,
        AsyncClient(f"127.0.0.1:{server.grpc_port}") as client,
        stub_of(server.grpc_port) as one,
        stub_of(server.grpc_port) as other,
    ):
        session = await client.open("tiny")
        flooding = asyncio.gather(flood_with_opens(one), flood_with_opens(other))
        for k in range(20):
            await session.step(np.array([k]))
        opened = [*itertools.chain(*await flooding)]
        assert len(opened) == 39
        await one.Close(pb.CloseRequest(session=opened[0]))
        await open_session(other)


async def flood_with_opens(stub: Any) -> list[str]:
    """The sessions that could be opened; the others were refused in as many words."""
    calls = [stub.Open(pb.OpenRequest(model="tiny")) for _ in range(100)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for error in outcomes:
        if isinstance(error, grpc.aio.AioRpcError):
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == "the server has 40 sessions and takes 40 at most"
            assert ("carousel-reason", "SESSION_LIMIT") in tuple(error.trailing_metadata())
    return [one.session for one in outcomes if isinstance(one, pb.OpenResponse)]


async def test_one_caller_who_fills_the_queue_is_told_of_every_chunk_and_others_are_served(
    repository: Path,
) -> None:
    async with serving(repository, max_queued_chunks=64) as server:
        sent, told = Counter[str](), Counter[str]()

        async def send(call: Any, name: str) -> None:
            for _ in range(200):
                frame = pb.StepFrame(handles=range(48), inputs=tokens(*[1] * 48))
                await call.write(pb.StreamRequest(steps=frame))
                sent[name] += 48
            await call.done_writing()

        async def take_everything(stub: Any, name: str) -> None:
            call = stub.Stream()
            await call.write(attach(*[await open_session(stub) for _ in range(48)]))
            sending = asyncio.create_task(send(call, name))
            async for response in call:
                frame = response.answers
                told[name] += len(frame.handles)
                told["refused"] += len(frame.errors)
                assert {error.reason for error in frame.errors} <= {Reason.QUEUE_FULL}
            await sending

        async with stub_of(server.grpc_port) as stub:
            greedy = asyncio.gather(*(take_everything(stub, f"stream {k}") for k in range(4)))
            await is_served(server, 20)
            await greedy
        assert told.pop("refused") > 0
        assert told == sent
        assert server.engine.queue.chunks == 0
