"""Tokens made on the server: each comes once, whatever the connection does."""

import asyncio
from contextlib import aclosing

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.client import (
    AsyncClient,
    AsyncSession,
    ClientClosedError,
    IndexUnexpectedError,
    InvalidInputError,
    ServerUnreachableError,
    SessionGoneError,
)
from carousel.wire.carousel_pb2 import Reason
from tests.unit.fake_operations import Cut
from tests.unit.fake_server import FakeServer, listening
from tests.unit.fake_sums import FakeSession
from tests.unit.stepping import until


async def generated(session: AsyncSession, prompt: list[int], count: int, **options) -> list[int]:
    return [token async for token in session.generate(prompt, count, **options)]


@pytest.fixture
async def session(client: AsyncClient) -> AsyncSession:
    session = await client.open("count", session="mine")
    await session.step(np.array([4, 4]))
    return session


@pytest.fixture
async def whole(client: AsyncClient, session: AsyncSession) -> list[int]:
    """What one unbroken call gives to a twin of the session."""
    (twin,) = await session.fork()
    tokens = await generated(twin, [1, 2, 3], 12, seed=5)
    assert len(tokens) == 12
    assert len(set(tokens)) > 3, "tokens that are all alike would prove nothing"
    return tokens


async def test_a_session_stands_before_its_last_token(session: AsyncSession, whole: list[int]) -> None:
    assert await generated(session, [1, 2, 3], 12, seed=5) == whole
    assert session.next_index == 2 + 3 + 11
    answer = await session.step(np.array([whole[-1]]))
    assert answer["y"][0] == 8 + 6 + sum(whole)


async def test_the_parts_of_a_generation_are_the_whole(session: AsyncSession, whole: list[int]) -> None:
    first = await generated(session, [1, 2, 3], 4, seed=5)
    assert first + await generated(session, first[-1:], 8, seed=5) == whole


async def test_what_is_asked_for_reaches_the_server(session: AsyncSession, fake: FakeServer) -> None:
    fake.calls.clear()
    await generated(session, [1], 3, temperature=0.5, top_k=7, top_p=0.9, seed=11, stop=[99])
    (request,) = fake.calls
    assert (request.temperature, request.top_k, request.top_p, request.seed) == (0.5, 7, 0.9, 11)
    assert (request.first_index, request.max_tokens, list(request.stop)) == (2, 3, [99])
    await generated(session, np.array([1]), 1)
    await generated(session, [1], 1)
    assert fake.calls[1].seed != fake.calls[2].seed, "draws are new unless they are asked for"
    assert fake.calls[1].request_id != fake.calls[2].request_id


async def test_a_stop_token_is_the_last(session: AsyncSession, whole: list[int]) -> None:
    end = whole.index(whole[5]) + 1
    assert await generated(session, [1, 2, 3], 12, seed=5, stop=[whole[5]]) == whole[:end]


CUTS = st.builds(Cut, st.integers(0, 12), st.integers(0, 4), st.just(False))
RESTARTS = st.builds(Cut, st.integers(1, 12), st.integers(0, 1), st.just(True)) | st.just(Cut(0, 0, True))


@pytest.mark.parametrize("count", [1, 2, 12])
async def test_a_generation_cut_off_in_any_way_goes_on_without_losing_or_repeating_a_token(
    count: int,
) -> None:
    """Connections break and servers are restarted, before, between and after tokens."""
    fake = FakeServer()
    async with listening(fake) as port, AsyncClient(f"127.0.0.1:{port}", timeout_s=5) as client:
        for cuts in histories(30):
            session = await client.open("count")
            (twin,) = await session.fork()
            whole = await generated(twin, [1, 2, 3], count, seed=5)
            fake.generation_cuts = list(cuts)
            assert await generated(session, [1, 2, 3], count, seed=5) == whole, cuts
            assert fake.sessions[session.id].next_index == session.next_index == 2 + count, cuts
            fake.generation_cuts = []


def histories(count: int) -> list[list[Cut]]:
    """Up to four cuts each, drawn anew for every run of the tests."""
    found: list[list[Cut]] = []

    @given(st.lists(CUTS | RESTARTS, max_size=4))
    @settings(max_examples=count)
    def draw(cuts: list[Cut]) -> None:
        found.append(cuts)

    draw()
    return found


@pytest.mark.parametrize("stops", [False, True])
async def test_a_restart_after_the_last_token_asks_for_nothing_more(
    session: AsyncSession, whole: list[int], fake: FakeServer, stops: bool
) -> None:
    fake.ends_well = False
    last = 1 + whole.index(whole[7]) if stops else 12
    tokens = []
    async for token in session.generate([1, 2, 3], 12, seed=5, stop=[whole[7]] if stops else []):
        tokens.append(token)
        if len(tokens) == last:
            fake.replays.clear()
    assert tokens == whole[:last]


@pytest.mark.parametrize("more", [2, 3])
async def test_tokens_that_a_restart_took_before_they_were_told_cannot_be_had(
    session: AsyncSession, fake: FakeServer, more: int
) -> None:
    fake.generation_cuts = [Cut(5, more, restarts=True)]
    tokens = session.generate([1, 2, 3], 12, seed=5)
    told = [await anext(tokens) for _ in range(5)]
    with pytest.raises(IndexUnexpectedError):
        told.append(await anext(tokens))
    assert len(told) == 5


async def test_a_restarted_server_without_the_last_answer_is_asked_for_it_once(
    session: AsyncSession, fake: FakeServer
) -> None:
    fake.generation_cuts = [Cut(5, 1, restarts=True)]
    tokens = session.generate([1, 2, 3], 12, seed=5)
    for _ in range(5):
        await anext(tokens)
    fake.telling.clear()
    going_on = asyncio.ensure_future(anext(tokens))
    await until(lambda: not fake.replays)
    fake.sessions["mine"].fed = None
    with pytest.raises(IndexUnexpectedError):
        await asyncio.wait_for(going_on, 3)


async def test_a_session_that_stands_elsewhere_from_the_start_is_an_error(
    session: AsyncSession, fake: FakeServer
) -> None:
    fake.sessions["mine"].next_index = 3
    with pytest.raises(IndexUnexpectedError) as caught:
        await generated(session, [1, 2, 3], 12)
    assert caught.value.expected_index == 3
    await session.step(np.array([1]))
    assert session.next_index == 4, "it has found its place"


async def test_whoever_stops_reading_finds_the_session_where_the_server_left_it(
    session: AsyncSession, fake: FakeServer
) -> None:
    async with aclosing(session.generate([1], 1 << 30)) as tokens:
        async for _ in tokens:
            break
    answers = await asyncio.gather(*(session.step(np.array([0])) for _ in range(5)))
    assert len({int(answer["y"][0]) for answer in answers}) == 1
    assert session.next_index == fake.sessions["mine"].next_index


async def test_a_step_ends_a_generation_that_was_left_open(session: AsyncSession, fake: FakeServer) -> None:
    tokens = session.generate([1], 1 << 30)
    await anext(tokens)
    await session.step(np.array([0]))
    assert session.next_index == fake.sessions["mine"].next_index
    with pytest.raises(InvalidInputError, match="used for something else meanwhile"):
        async for _ in tokens:
            pass


async def test_steps_under_way_are_to_be_awaited_first(session: AsyncSession, fake: FakeServer) -> None:
    fake.answering.clear()
    step = asyncio.create_task(session.step(np.array([1])))
    await asyncio.sleep(0)
    with pytest.raises(InvalidInputError, match="await the steps"):
        await generated(session, [1], 1)
    fake.answering.set()
    await step
    assert len(await generated(session, [1], 1)) == 1


async def test_a_server_that_stays_away_is_unreachable(fake: FakeServer) -> None:
    async with listening(fake) as port:
        client = AsyncClient(f"127.0.0.1:{port}", timeout_s=0.2)
        session = await client.open("count")
    async with client:
        with pytest.raises(ServerUnreachableError, match=r"no token from 127.0.0.1:\d+ within 0.2 s"):
            await generated(session, [1], 5)
    with pytest.raises(ClientClosedError):
        await generated(session, [1], 5)


async def test_a_server_that_says_nothing_is_unreachable(fake: FakeServer) -> None:
    async with listening(fake) as port, AsyncClient(f"127.0.0.1:{port}", timeout_s=0.2) as client:
        session = await client.open("count")
        fake.telling.clear()
        with pytest.raises(ServerUnreachableError, match="has not answered"):
            await generated(session, [1], 5)


async def test_what_the_server_refuses_is_raised(session: AsyncSession, fake: FakeServer) -> None:
    fake.call_errors.append((grpc.StatusCode.NOT_FOUND, Reason.SESSION_EXPIRED))
    with pytest.raises(SessionGoneError) as gone:
        await generated(session, [1], 5)
    assert gone.value.reason == Reason.SESSION_EXPIRED
    assert isinstance(fake.sessions["mine"], FakeSession)
