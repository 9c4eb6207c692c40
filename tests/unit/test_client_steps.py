"""The client against a server that keeps the rules and behaves."""

import asyncio

import numpy as np
import pytest

from carousel.client import (
    AsyncClient,
    InvalidInputError,
    StepTimeoutError,
)
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from tests.unit.fake_server import FakeServer
from tests.unit.fake_sums import WINDOW_CHUNKS
from tests.unit.stepping import pair, total, until


async def test_steps_of_a_session_build_on_each_other(client: AsyncClient) -> None:
    session = await client.open("sum")
    assert [await total(session, value) for value in (1, 2, 3)] == [1, 3, 6]
    assert session.next_index == 3


async def test_a_chunk_is_answered_with_all_its_steps(client: AsyncClient) -> None:
    session = await client.open("sum")
    outputs = await session.step({"x": pair(1, steps=4)})
    np.testing.assert_array_equal(outputs["y"][:, 0], [1, 2, 3, 4])
    assert outputs["y"].dtype == np.float32
    assert outputs["y"].flags.writeable


async def test_inputs_may_change_after_the_call_began(client: AsyncClient, fake: FakeServer) -> None:
    session = await client.open("sum")
    inputs = pair(1)
    fake.answering.clear()
    step = asyncio.create_task(session.step(inputs))
    await asyncio.sleep(0)
    inputs[:] = 99
    fake.answering.set()
    assert (await step)["y"][0, 0] == 1


async def test_pipelined_steps_are_applied_in_the_order_of_the_calls(client: AsyncClient) -> None:
    session = await client.open("sum")
    answers = await asyncio.gather(*(total(session, 10.0**k) for k in range(6)))
    assert answers == [1, 11, 111, 1111, 11111, 111111]


async def test_no_more_than_the_window_is_under_way(client: AsyncClient, fake: FakeServer) -> None:
    session = await client.open("sum")
    fake.answering.clear()
    steps = [asyncio.create_task(total(session, 1)) for _ in range(30)]
    await until(lambda: fake.sent == WINDOW_CHUNKS)
    await asyncio.sleep(0.02)
    assert fake.sent == WINDOW_CHUNKS
    fake.answering.set()
    assert await asyncio.gather(*steps) == list(range(1, 31))


async def test_the_bytes_of_answers_under_way_are_bounded_too(client: AsyncClient, fake: FakeServer) -> None:
    fake.limits = pb.Limits()
    fake.limits.CopyFrom(FakeServer().limits)
    fake.limits.window_bytes = 3 * 2 * 4  # three steps
    session = await client.open("sum")
    fake.answering.clear()
    steps = [asyncio.create_task(total(session, 1)) for _ in range(5)]
    await until(lambda: fake.sent == 3)
    await asyncio.sleep(0.02)
    assert fake.sent == 3
    fake.answering.set()
    assert await asyncio.gather(*steps) == [1, 2, 3, 4, 5]


async def test_a_stream_has_no_more_chunks_in_the_server_than_its_limit(
    client: AsyncClient, fake: FakeServer
) -> None:
    fake.limits = pb.Limits()
    fake.limits.CopyFrom(FakeServer().limits)
    fake.limits.stream_chunks = 4
    sessions = [await client.open("sum") for _ in range(10)]
    fake.answering.clear()
    steps = [asyncio.create_task(total(session, 1)) for session in sessions]
    await until(lambda: fake.sent == 4)
    await asyncio.sleep(0.02)
    assert fake.sent == 4
    fake.answering.set()
    assert await asyncio.gather(*steps) == [1] * 10


async def test_steps_of_one_tick_travel_in_one_frame(client: AsyncClient, fake: FakeServer) -> None:
    sessions = [await client.open("sum") for _ in range(20)]
    for _ in range(3):
        await asyncio.gather(*(total(session, 1) for session in sessions))
    assert [len(frame.handles) for frame in fake.frames] == [20, 20, 20]
    assert fake.streams == 1


async def test_frames_hold_one_model_each(client: AsyncClient, fake: FakeServer) -> None:
    sums = [await client.open("sum") for _ in range(3)]
    counts = [await client.open("count") for _ in range(3)]
    answers = await asyncio.gather(
        *(session.step(pair(0.5)) for session in sums),
        *(session.step(np.array([7, 1])) for session in counts),
    )
    assert [answer["y"][-1].tolist() for answer in answers] == [[0.5, 0.5]] * 3 + [8] * 3
    assert len(fake.frames) == 2


async def test_answers_may_come_in_any_order_across_sessions(client: AsyncClient, fake: FakeServer) -> None:
    fake.backwards = True
    sessions = [await client.open("sum") for _ in range(5)]
    steps = [total(session, 10.0 * k + j) for k, session in enumerate(sessions) for j in (1, 2)]
    assert await asyncio.gather(*steps) == [1, 3, 11, 23, 21, 43, 31, 63, 41, 83]


async def test_an_answer_that_comes_twice_is_given_out_once(client: AsyncClient, fake: FakeServer) -> None:
    fake.answer_twice = True
    session = await client.open("sum")
    assert [await total(session, 1) for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_answers_received_are_acknowledged_by_the_next_step(
    client: AsyncClient, fake: FakeServer
) -> None:
    session = await client.open("sum")
    for _ in range(3):
        await total(session, 1)
    assert [frame.acknowledged[0] for frame in fake.frames] == [0, 1, 2]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((1, 2)), "x: expected float32 [N, 2], came float64 [1, 2]"),
        (np.zeros((1, 3), np.float32), "x: expected float32 [N, 2], came float32 [1, 3]"),
        ({"z": pair(1)}, "inputs: expected x, came z"),
        ({}, "inputs: expected x, came none"),
        (pair(1, steps=0), "inputs: expected 1 to 100 steps a chunk, came 0"),
        (pair(1, steps=101), "inputs: expected 1 to 100 steps a chunk, came 101"),
    ],
)
async def test_inputs_that_do_not_fit_are_refused_here_and_change_nothing(
    client: AsyncClient, fake: FakeServer, inputs: np.ndarray, words: str
) -> None:
    session = await client.open("sum")
    with pytest.raises(InvalidInputError, match=words.replace("[", r"\[")) as caught:
        await session.step(inputs)
    assert caught.value.reason == Reason.INVALID_INPUT
    assert await total(session, 1) == 1
    assert len(fake.frames) == 1


async def test_a_step_without_an_answer_in_time_says_that_it_may_have_been_applied(
    client: AsyncClient, fake: FakeServer
) -> None:
    session = await client.open("sum")
    fake.answering.clear()
    with pytest.raises(StepTimeoutError, match=r"step 0: .* may or may not have been applied"):
        await session.step(pair(5), timeout_s=0.02)
    fake.answering.set()
    assert await total(session, 1) == 6, "the step went on without its caller"


async def test_a_cancelled_step_goes_on_without_its_caller(client: AsyncClient, fake: FakeServer) -> None:
    session = await client.open("sum")
    step = asyncio.create_task(total(session, 5))
    await until(lambda: session.next_index == 1)
    step.cancel()
    assert await total(session, 1) == 6
