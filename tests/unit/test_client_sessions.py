"""Opening, finding and closing sessions, and closing the client."""

import asyncio
import gc
import weakref

import pytest

from carousel.client import (
    AsyncClient,
    ClientClosedError,
    ModelNotFoundError,
    SessionExistsError,
    SessionGoneError,
)
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from tests.unit.fake_server import FakeServer, listening
from tests.unit.fake_sums import WINDOW_CHUNKS
from tests.unit.stepping import pair, total, until


async def test_a_session_can_be_found_again_where_it_stands(client: AsyncClient) -> None:
    first = await client.open("sum", session="mine")
    await asyncio.gather(*(total(first, 1) for _ in range(20)))
    second = await client.attach("mine")
    assert (second.model, second.version, second.next_index) == ("sum", "1", 20)
    assert await total(second, 1) == 21


async def test_a_session_tells_where_it_stands_on_the_server(client: AsyncClient) -> None:
    session = await client.open("sum")
    await session.step(pair(1, steps=3))
    described = await session.describe()
    assert (described.next_index, described.kept_answers, described.version) == (3, 1, "1")


async def test_a_closed_session_takes_no_more_steps(client: AsyncClient) -> None:
    session = await client.open("sum")
    await total(session, 1)
    assert await session.close() == 1
    with pytest.raises(SessionGoneError, match="closed by this client"):
        await total(session, 1)
    assert await session.close() == 1, "closing again gets the first answer"


async def test_closing_fails_the_steps_under_way(client: AsyncClient, fake: FakeServer) -> None:
    session, other = await client.open("sum"), await client.open("sum")
    fake.answering.clear()
    step, others = asyncio.create_task(total(session, 1)), asyncio.create_task(total(other, 1))
    await until(lambda: fake.sent == 2)
    await session.close()
    with pytest.raises(SessionGoneError):
        await step
    fake.answering.set()
    assert await others == 1


async def test_a_closed_session_leaves_nothing_behind(client: AsyncClient) -> None:
    session = await client.open("sum")
    await total(session, 1)
    log = weakref.ref(session._lane.log)
    await session.close()
    del session
    gc.collect()
    assert log() is None


async def test_the_longest_chunk_fits_the_window_and_a_quarter_of_a_message(
    client: AsyncClient, fake: FakeServer
) -> None:
    fake.limits = pb.Limits(chunk_steps=100, window_chunks=8, window_bytes=8 * 50, message_bytes=4 * 8 * 60)
    assert (await client.open("sum")).chunk_steps == 50
    fake.limits.window_bytes = 8 * 70
    await client.models()
    assert (await client.open("sum")).chunk_steps == 60


async def test_leaving_the_client_fails_the_steps_under_way_and_keeps_the_session(fake: FakeServer) -> None:
    async with listening(fake) as port:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            session = await client.open("sum", session="mine")
            fake.answering.clear()
            step = asyncio.create_task(total(session, 1))
            await until(lambda: fake.sent == 1)
        with pytest.raises(ClientClosedError, match="may or may not"):
            await step
        with pytest.raises(ClientClosedError, match="the client is closed"):
            await total(session, 1)
        with pytest.raises(ClientClosedError, match="the client is closed"):
            await session.describe()
    assert "mine" in fake.sessions


async def test_what_the_server_refuses_is_a_typed_error(client: AsyncClient) -> None:
    with pytest.raises(ModelNotFoundError):
        await client.open("product")
    await client.open("sum", session="mine")
    with pytest.raises(SessionExistsError) as exists:
        await client.open("sum", session="mine")
    assert exists.value.reason == Reason.SESSION_EXISTS
    with pytest.raises(SessionGoneError) as gone:
        await client.attach("yours")
    assert gone.value.reason == Reason.SESSION_NOT_FOUND


async def test_models_tell_their_contracts_and_limits(client: AsyncClient, fake: FakeServer) -> None:
    models = {model.name: model for model in await client.models()}
    assert models["count"].contract == fake.contracts["count"]
    assert models["sum"].limits.window_chunks == WINDOW_CHUNKS
