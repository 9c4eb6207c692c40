"""The client while connections break: nothing lost, nothing twice, nothing out of order."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from bench.proxy import CuttableProxy
from carousel.client import (
    AsyncClient,
    ServerFailedError,
    ServerUnreachableError,
    StepTimeoutError,
)
from carousel.wire.carousel_pb2 import Reason
from tests.unit.fake_server import FakeServer, listening
from tests.unit.stepping import pair, total, until


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    yield fake
    assert fake.mistakes == []


@pytest.fixture
async def proxy(fake: FakeServer) -> AsyncIterator[CuttableProxy]:
    async with listening(fake) as port, CuttableProxy(port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: CuttableProxy) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{proxy.port}", timeout_s=5) as client:
        yield client


async def test_answers_lost_with_the_connection_are_replayed(
    client: AsyncClient, proxy: CuttableProxy, fake: FakeServer
) -> None:
    session = await client.open("sum")
    assert await total(session, 1) == 1
    proxy.swallow_answers()
    steps = [asyncio.create_task(total(session, 10)) for _ in range(20)]
    await until(lambda: fake.sessions[session.id].next_index == 1 + 8)
    proxy.cut()
    assert await asyncio.gather(*steps) == [1 + 10 * k for k in range(1, 21)]
    assert fake.sessions[session.id].next_index == 21


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL]
)
async def test_a_stream_that_ends_is_made_anew_whether_or_not_the_step_was_applied(
    client: AsyncClient, fake: FakeServer, applied: bool, code: grpc.StatusCode
) -> None:
    fake.cuts = [(applied, code), (not applied, code)]
    session = await client.open("sum")
    assert await asyncio.gather(*(total(session, 1) for _ in range(3))) == [1, 2, 3]
    assert fake.streams == 3


async def test_a_connection_cut_again_and_again_costs_only_time(
    client: AsyncClient, proxy: CuttableProxy
) -> None:
    sessions = [await client.open("sum") for _ in range(10)]

    async def break_things() -> None:
        for k in range(10):
            await asyncio.sleep(0.02)
            if k % 2:
                proxy.swallow_answers()
                await asyncio.sleep(0.005)
            proxy.cut()

    breaking = asyncio.create_task(break_things())

    async def drive(number: int) -> list[float]:
        answers = []
        while not breaking.done():
            answers += await asyncio.gather(*(total(sessions[number], 1) for _ in range(5)))
        return answers

    for answers in await asyncio.gather(*(drive(number) for number in range(10))):
        assert answers == [float(k) for k in range(1, len(answers) + 1)]
    assert proxy.accepted > 2


async def test_a_server_that_restarts_is_found_again(fake: FakeServer) -> None:
    async with listening(fake) as port:
        client = AsyncClient(f"127.0.0.1:{port}", timeout_s=5)
        session = await client.open("sum")
        assert await total(session, 1) == 1
    step = asyncio.create_task(total(session, 1))
    await asyncio.sleep(0.03)
    assert not step.done()
    async with listening(fake, port), client:
        assert await step == 2


async def test_a_step_timed_out_without_a_server_is_applied_once_it_is_back(fake: FakeServer) -> None:
    async with listening(fake) as port:
        client = AsyncClient(f"127.0.0.1:{port}", timeout_s=5)
        session = await client.open("sum")
    with pytest.raises(StepTimeoutError, match=r"step 0: no answer within 0.05 s"):
        await session.step(pair(5), timeout_s=0.05)
    async with listening(fake, port), client:
        assert await total(session, 1) == 6


async def test_an_idle_client_does_not_connect_again_before_it_has_something_to_send(
    client: AsyncClient, proxy: CuttableProxy, fake: FakeServer
) -> None:
    session = await client.open("sum")
    await total(session, 1)
    proxy.cut()
    await asyncio.sleep(0.05)
    assert fake.streams == 1
    assert await total(session, 1) == 2
    assert fake.streams == 2


async def test_only_sessions_with_something_to_send_are_attached(
    client: AsyncClient, fake: FakeServer
) -> None:
    busy, idle = await client.open("sum", session="busy"), await client.open("sum", session="idle")
    await total(busy, 1)
    await total(idle, 1)
    fake.cuts = [(True, grpc.StatusCode.UNAVAILABLE)]
    await total(busy, 1)
    assert fake.attached == ["busy", "idle", "busy"]


async def test_a_stream_refused_for_good_fails_its_steps_at_once(
    client: AsyncClient, fake: FakeServer
) -> None:
    fake.cuts = [(False, grpc.StatusCode.INVALID_ARGUMENT)]
    session = await client.open("sum")
    with pytest.raises(ServerFailedError, match=r"fake end of the stream; it may or may not"):
        await total(session, 1)
    assert await total(session, 1) == 1


async def test_a_stream_that_has_given_out_its_handles_is_left_for_a_new_one(
    client: AsyncClient, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carousel.client.outbox.STREAM_HANDLES", 4)
    sessions = [await client.open("sum") for _ in range(10)]
    for session in sessions:
        assert await asyncio.gather(*(total(session, 1) for _ in range(3))) == [1, 2, 3]
    assert fake.streams == 4  # the fourth attachment of a stream is answered, but no step follows it


async def test_a_call_whose_answer_was_lost_is_repeated_and_done_once(
    client: AsyncClient, fake: FakeServer
) -> None:
    lost = (grpc.StatusCode.UNAVAILABLE, Reason.REASON_UNSPECIFIED)
    fake.call_errors.extend([lost, lost])
    session = await client.open("sum")
    assert list(fake.sessions) == [session.id]
    await total(session, 1)
    fake.call_errors.append(lost)
    assert await session.close() == 1


async def test_a_server_that_is_not_there_is_one_line() -> None:
    async with AsyncClient("127.0.0.1:1", timeout_s=0.05) as client:
        with pytest.raises(ServerUnreachableError, match=r"no answer from 127.0.0.1:1 within 0.05 s"):
            await client.models()
