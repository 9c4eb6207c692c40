"""The real client against the real service, with a proxy between them that keeps breaking the connection."""

import asyncio

import numpy as np

from bench.proxy import CuttableProxy
from carousel.client import AsyncClient
from tests.models import SYMBOLS

SESSIONS = 8
STEPS = 200


async def drive(client: AsyncClient, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Step a session through all tokens in chunks of random length, several under way; returns its logits."""
    session = await client.open("tiny")
    cuts = np.flatnonzero(rng.random(len(tokens) - 1) < 0.5) + 1
    chunks = [session.step(chunk) for chunk in np.split(tokens, cuts)]
    answers = await asyncio.gather(*chunks)
    assert (await session.describe()).next_index == len(tokens)
    return np.concatenate([answer["logits"] for answer in answers])


async def test_sessions_over_a_breaking_connection_equal_undisturbed_ones_bit_for_bit(server) -> None:
    rng = np.random.default_rng(11)
    tokens = rng.integers(0, len(SYMBOLS), (SESSIONS, STEPS))
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        calm = await asyncio.gather(*(drive(client, row, rng) for row in tokens))
    async with (
        CuttableProxy(server.grpc_port) as proxy,
        AsyncClient(f"127.0.0.1:{proxy.port}") as client,
    ):
        driving = asyncio.gather(*(drive(client, row, rng) for row in tokens))
        while not driving.done() and proxy.accepted < 15:
            await asyncio.sleep(rng.uniform(0, 0.02))
            if rng.random() < 0.5:
                proxy.swallow_answers()
                await asyncio.sleep(0.005)
            proxy.cut()
        shaken = await driving
        assert proxy.accepted >= 2
    np.testing.assert_array_equal(np.stack(shaken), np.stack(calm))


async def test_an_answer_lost_on_the_way_is_replayed_and_the_step_counts_once(server) -> None:
    async with (
        CuttableProxy(server.grpc_port) as proxy,
        AsyncClient(f"127.0.0.1:{proxy.port}") as client,
        AsyncClient(f"127.0.0.1:{server.grpc_port}") as observer,
    ):
        session = await client.open("tiny")
        await session.step(np.array([1]))
        proxy.swallow_answers()
        lost = asyncio.create_task(session.step(np.array([2])))
        while (await observer.attach(session.id)).next_index < 2:
            await asyncio.sleep(0.001)
        proxy.cut()
        undisturbed = await observer.open("tiny")
        expected = (await undisturbed.step(np.array([1, 2])))["logits"][1]
        np.testing.assert_array_equal((await lost)["logits"][0], expected)
    assert server.metrics.registry.get_sample_value("carousel_replays_total") == 1
