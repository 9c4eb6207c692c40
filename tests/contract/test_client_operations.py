"""The Python client and the real service: sessions copied, put back, listed, made to write and to look ahead."""

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bench.proxy import CuttableProxy
from carousel.client import (
    AsyncClient,
    AsyncSession,
    ModelFailedError,
    SessionExistsError,
    SessionGoneError,
    SnapshotRefusedError,
)
from service.server import Server
from tests.models import tiny_characters
from tests.ports_model import serving
from tests.processes import running_service

PROMPT = [3, 1, 4, 1, 5]
TOKENS = 200


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[CuttableProxy]:
    async with CuttableProxy(server.grpc_port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: CuttableProxy) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{proxy.port}", timeout_s=20) as client:
        yield client


@pytest.fixture
async def session(client: AsyncClient) -> AsyncSession:
    session = await client.open("tiny", session="mine")
    await session.step(np.array([7, 8, 9]))
    return session


async def logits(session: AsyncSession, *tokens: int) -> np.ndarray:
    return (await session.step(np.array(tokens)))["logits"]


async def generated(session: AsyncSession, prompt: list[int], count: int, **options) -> list[int]:
    return [token async for token in session.generate(prompt, count, **options)]


async def cut_again_and_again(proxy: CuttableProxy) -> None:
    while True:
        await asyncio.sleep(0.03)
        proxy.swallow_answers()
        await asyncio.sleep(0.01)
        proxy.cut()


# ---- Copies ----


async def test_copies_and_restored_sessions_answer_as_the_session_does(
    client: AsyncClient, session: AsyncSession
) -> None:
    snapshot = await session.snapshot()
    copies = await session.fork(["a", "b"])
    again = await client.open("tiny", snapshot=snapshot)
    assert [one.next_index for one in (*copies, again)] == [3, 3, 3]
    wanted = await logits(session, 1, 2)
    for one in (*copies, again):
        np.testing.assert_array_equal(await logits(one, 1, 2), wanted)
    await session.restore(snapshot)
    np.testing.assert_array_equal(await logits(session, 1, 2), wanted)
    assert (await session.describe()).next_index == session.next_index == 5
    with pytest.raises(SessionExistsError):
        await session.fork(["c", "a"])
    with pytest.raises(SnapshotRefusedError):
        await session.restore(snapshot[:-1])
    np.testing.assert_array_equal(await logits(session, 3), await logits(copies[0], 3))


async def test_operations_are_done_once_however_often_their_answers_are_lost(
    client: AsyncClient, session: AsyncSession, proxy: CuttableProxy
) -> None:
    breaking = asyncio.create_task(cut_again_and_again(proxy))
    try:
        while proxy.accepted < 6:
            for copy in await session.fork(3):
                await copy.restore(await copy.snapshot())
                await copy.close()
            await (await client.open("tiny")).close()
    finally:
        breaking.cancel()
    assert [found.id async for found in client.list_sessions()] == ["mine"]


async def test_an_old_life_of_a_session_ends_for_whoever_else_steps_it(
    client: AsyncClient, session: AsyncSession
) -> None:
    other = await client.attach("mine")
    await logits(other, 1)
    await session.restore(await session.snapshot())
    with pytest.raises(SessionGoneError):
        await logits(other, 1)
    await logits(session, 1)


async def test_sessions_are_listed_in_the_order_of_their_opening(
    client: AsyncClient, session: AsyncSession
) -> None:
    await session.fork([f"copy-{k}" for k in range(30)])
    found = [one async for one in client.list_sessions(prefix="copy-", model="tiny", all_owners=True)]
    assert [one.id for one in found] == [f"copy-{k}" for k in range(30)]
    assert {(one.model, one.version, one.next_index, one.pinned) for one in found} == {
        ("tiny", "1", 3, False)
    }
    assert await session.touch() == pytest.approx((await session.describe()).expires_in_s, abs=5)


# ---- Loops ----


async def test_a_generation_is_the_same_over_a_line_that_breaks_again_and_again(
    session: AsyncSession, proxy: CuttableProxy
) -> None:
    (twin,) = await session.fork()
    whole = await generated(twin, PROMPT, TOKENS, seed=5)
    breaking = asyncio.create_task(cut_again_and_again(proxy))
    try:
        assert await generated(session, PROMPT, TOKENS, seed=5) == whole
    finally:
        breaking.cancel()
    assert proxy.accepted > 1
    assert session.next_index == twin.next_index == 3 + len(PROMPT) + TOKENS - 1
    np.testing.assert_array_equal(await logits(session, whole[-1]), await logits(twin, whole[-1]))


async def test_the_likeliest_tokens_are_those_of_steps_made_by_hand(session: AsyncSession) -> None:
    (twin,) = await session.fork()
    token, by_hand = PROMPT, []
    for _ in range(20):
        token = [int((await logits(twin, *token))[-1].argmax())]
        by_hand += token
    assert await generated(session, PROMPT, 20, temperature=0) == by_hand


async def test_whoever_stops_reading_goes_on_stepping_where_the_server_stopped(session: AsyncSession) -> None:
    for count in range(1, 20):
        before = session.next_index
        async for _ in session.generate(PROMPT, 60_000):
            count -= 1  # noqa: PLW2901 - it is to be used up
            if not count:
                break
        await logits(session, 1)
        assert before + len(PROMPT) < session.next_index < before + 500


async def test_a_generation_survives_a_planned_restart(repository: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--grpc-port", str(port), "--state-dir", str(tmp_path))
    async with AsyncClient(f"127.0.0.1:{port}", timeout_s=30) as client:
        with running_service(repository, *options) as service:
            session = await client.open("tiny")
            (twin,) = await session.fork()
            whole = await generated(twin, PROMPT, TOKENS, seed=5)
            tokens = session.generate(PROMPT, TOKENS, seed=5)
            told = [await anext(tokens) for _ in range(10)]
            service.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(service.process.wait, 30) == 0
        with running_service(repository, *options):
            told += [token async for token in tokens]
    assert told == whole


async def test_a_forecast_is_what_a_fork_would_answer(session: AsyncSession) -> None:
    ways = [np.array([1, 2, 3, 4]), np.array([9, 8, 7, 6])]
    copies = await session.fork(2)
    forecasts = await session.forecast(4, ways)
    for forecast, copy, way in zip(forecasts, copies, ways, strict=True):
        np.testing.assert_array_equal(forecast["logits"], await logits(copy, *way))
    assert (await session.describe()).next_index == session.next_index == 3
    assert await session.fork() != []


# ---- Models ----


@pytest.fixture
async def changing(tmp_path: Path) -> AsyncIterator[tuple[AsyncClient, Path]]:
    """A client of a server with version 1, and its repository."""
    tiny_characters(tmp_path / "models", version=1)
    async with (
        serving(tmp_path / "models") as (server, _),
        AsyncClient(f"127.0.0.1:{server.grpc_port}", timeout_s=20) as client,
    ):
        yield client, tmp_path / "models"


async def test_sessions_go_on_with_the_version_that_takes_over_unless_they_are_pinned(
    changing: tuple[AsyncClient, Path],
) -> None:
    client, models = changing
    free, pinned = await client.open("tiny"), await client.open("tiny", version="1", session="pinned")
    before = await asyncio.gather(logits(free, 1), logits(pinned, 1))
    np.testing.assert_array_equal(*before)
    tiny_characters(models, version=2, seed=1)
    loaded = await client.load_model("tiny")
    assert (loaded.model.version, loaded.took_over) == ("2", True)
    after = await asyncio.gather(logits(free, 1), logits(pinned, 1), logits(await client.open("tiny"), 1))
    assert (free.version, pinned.version) == ("2", "1")
    assert not np.array_equal(after[0], after[1])
    again = await client.attach("pinned")
    (copy,) = await again.fork()
    np.testing.assert_array_equal(*await asyncio.gather(logits(copy, 2), logits(again, 2)))
    assert copy.version == "1"


async def test_a_version_that_cannot_be_loaded_is_named_and_changes_nothing(
    changing: tuple[AsyncClient, Path],
) -> None:
    client, models = changing
    session = await client.open("tiny")
    shutil.copytree(models / "tiny" / "1", models / "tiny" / "2")
    (models / "tiny" / "2" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelFailedError):
        await client.load_model("tiny", "2")
    (failed,) = await client.failed_models()
    assert (failed.name, failed.version) == ("tiny", "2")
    assert failed.error
    assert [model.version for model in await client.models()] == ["1"]
    await logits(session, 1)
    assert await client.unload_model("tiny", "1") == 1
    (model,) = await client.models()
    assert (model.retiring, model.sessions) == (True, 1)
