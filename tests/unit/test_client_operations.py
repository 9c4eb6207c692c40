"""Copies, snapshots, lists, forecasts, whole inputs and models, as the client asks for them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest

from carousel.client import (
    AsyncClient,
    AsyncSession,
    InvalidInputError,
    ModelDiffersError,
    ModelFailedError,
    ModelNotFoundError,
    QuotaExceededError,
    ServerFailedError,
    SessionExistsError,
    SessionGoneError,
    SnapshotRefusedError,
    StepTimeoutError,
)
from carousel.client.tensors import from_arrays, from_forecast
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from tests.unit.fake_operations import mirror
from tests.unit.fake_server import FakeServer
from tests.unit.fake_sums import contract
from tests.unit.stepping import pair, total, until


@pytest.fixture
async def session(client: AsyncClient) -> AsyncSession:
    """Three steps of 1."""
    session = await client.open("sum", session="mine")
    await session.step(pair(1, steps=3))
    return session


# ---- Copies ----


async def test_a_fork_goes_its_own_way(session: AsyncSession) -> None:
    first, second = await session.fork(2)
    assert first.next_index == second.next_index == 3
    assert await total(first, 10) == 13
    assert await total(second, 20) == 23
    assert await total(session, 1) == 4


async def test_copies_may_have_ids_of_their_own(session: AsyncSession) -> None:
    assert [copy.id for copy in await session.fork(["a", "b"])] == ["a", "b"]
    with pytest.raises(SessionExistsError):
        await session.fork(["a"])


async def test_a_session_starts_from_a_snapshot_of_another(
    client: AsyncClient, session: AsyncSession
) -> None:
    snapshot = await session.snapshot()
    await total(session, 1)
    again = await client.open("sum", snapshot=snapshot)
    assert again.next_index == 3
    assert await total(again, 1) == 4


async def test_a_restored_session_goes_on_from_its_snapshot(session: AsyncSession) -> None:
    snapshot = await session.snapshot()
    assert await total(session, 10) == 13
    await session.restore(snapshot)
    assert session.next_index == 3
    assert await total(session, 1) == 4


async def test_steps_under_way_end_with_the_life_that_a_restore_ends(
    session: AsyncSession, fake: FakeServer
) -> None:
    snapshot = await session.snapshot()
    fake.answering.clear()
    steps = [asyncio.create_task(total(session, 10)) for _ in range(20)]
    await until(lambda: fake.sessions["mine"].next_index > 3)
    restoring = asyncio.create_task(session.restore(snapshot))
    for step in steps:
        with pytest.raises(SessionGoneError, match="'mine' was put back to a snapshot by this client"):
            await step
    await restoring
    fake.answering.set()
    assert await total(session, 1) == 4
    assert fake.sessions["mine"].next_index == 4


async def test_a_session_whose_restore_is_refused_stands_where_it_stood(
    session: AsyncSession, client: AsyncClient
) -> None:
    with pytest.raises(SnapshotRefusedError):
        await session.restore(b"damaged")
    assert await total(session, 1) == 4
    other = await client.open("count")
    with pytest.raises(ModelDiffersError):
        await session.restore(await other.snapshot())
    assert await total(session, 1) == 5


LOST = (grpc.StatusCode.UNAVAILABLE, 0)

Operation = Callable[[AsyncClient, AsyncSession], Awaitable[Any]]
OPERATIONS: dict[str, Operation] = {
    "fork": lambda _, session: session.fork(2),
    "restore": lambda _, session: session.restore(b"sum 1 " + bytes(8)),
    "open": lambda client, _: client.open("sum", snapshot=b"sum 1 " + bytes(8)),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_call_whose_answer_was_lost_is_repeated_and_done_once(
    client: AsyncClient, session: AsyncSession, fake: FakeServer, name: str
) -> None:
    fake.calls.clear()
    fake.call_errors.extend([LOST, LOST, (grpc.StatusCode.UNAVAILABLE, Reason.DRAINING)])
    sessions = len(fake.sessions)
    await OPERATIONS[name](client, session)
    assert len(fake.call_errors) == 0
    assert len({call.request_id for call in fake.calls}) <= 1
    assert len(fake.sessions) == sessions + {"fork": 2, "restore": 0, "open": 1}[name]


async def test_two_forks_are_two_calls(session: AsyncSession, fake: FakeServer) -> None:
    await session.fork()
    await session.fork()
    assert len(fake.sessions) == 3


# ---- Lists ----


async def test_sessions_are_listed_over_all_pages(client: AsyncClient, fake: FakeServer) -> None:
    fake.page_sessions = 2
    for k in range(5):
        await client.open("sum", session=f"a{k}")
    await client.open("count", session="b")
    everybody = [found async for found in client.list_sessions()]
    assert [found.id for found in everybody] == ["a0", "a1", "a2", "a3", "a4", "b"]
    assert [call.page_token for call in fake.calls] == ["", "2", "4"]
    assert [found.id async for found in client.list_sessions(prefix="a4")] == ["a4"]
    assert [found.id async for found in client.list_sessions(model="count")] == ["b"]
    assert fake.calls[-1].all_owners is False
    assert [found async for found in client.list_sessions(prefix="z", all_owners=True)] == []
    assert fake.calls[-1].all_owners is True


async def test_a_touch_tells_when_the_session_expires(session: AsyncSession) -> None:
    assert await session.touch() == 60.0
    await session.close()
    with pytest.raises(SessionGoneError):
        await session.touch()


# ---- Forecasts ----


async def test_a_forecast_answers_each_scenario_and_moves_nothing(session: AsyncSession) -> None:
    calm, storm = await session.forecast(2, [pair(1, steps=2), {"x": pair(100, steps=2)}])
    assert calm["y"].tolist() == [[4, 4], [5, 5]]
    assert storm["y"].tolist() == [[103, 103], [203, 203]]
    calm["y"][:] = 0  # the caller's own
    assert session.next_index == 3
    assert await total(session, 1) == 4


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": pair(1)}, "inputs: expected x, came z"),
        (pair(1).astype(np.float64), r"x: expected float32 \[N, 2\], came float64 \[1, 2\]"),
    ],
)
async def test_scenarios_that_do_not_fit_are_refused_here(
    session: AsyncSession, fake: FakeServer, inputs: Any, words: str
) -> None:
    fake.calls.clear()
    with pytest.raises(InvalidInputError, match=words):
        await session.forecast(1, [inputs])
    assert fake.calls == []


async def test_numbers_that_no_message_can_hold_are_named(session: AsyncSession) -> None:
    with pytest.raises(InvalidInputError, match="ForecastRequest: "):
        await session.forecast(-1, [])
    with pytest.raises(InvalidInputError, match="ForkRequest: "):
        await session.fork(-1)
    with pytest.raises(InvalidInputError, match="GenerateRequest: "):
        await anext(session.generate([1.5], 3))
    assert await total(session, 1) == 4


def test_an_answer_that_is_not_the_contracts_is_the_servers_failure() -> None:
    with pytest.raises(ServerFailedError, match="the tensor is missing"):
        from_forecast(contract(), pb.Forecasted(), 1)
    for array in (pb.Array(name="z"), pb.Array(name="y", shape=[3], data=bytes(4))):
        with pytest.raises(ServerFailedError, match="an answer cannot be read"):
            from_arrays(mirror().outputs, [array])


# ---- Models ----


async def test_a_whole_input_goes_through_its_model_at_once(client: AsyncClient) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    outputs = await client.infer("mirror", {"x": x, "lengths": np.array([3], np.int32)})
    np.testing.assert_array_equal(outputs["y"], -x)
    outputs["y"][:] = 0  # the caller's own


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": np.zeros((1, 1, 2))}, "x: expected float32, came float64"),
        ({"z": np.zeros(1)}, "inputs: expected x, lengths, came z"),
    ],
)
async def test_whole_inputs_of_other_names_or_dtypes_are_refused_here(
    client: AsyncClient, inputs: Any, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        await client.infer("mirror", inputs)


async def test_a_model_that_nobody_serves_is_named(client: AsyncClient) -> None:
    with pytest.raises(ModelNotFoundError, match="'mirror/7' is not being served"):
        await client.infer("mirror", {}, version="7")
    with pytest.raises(ModelDiffersError, match="'sum' is not primed"):
        await client.open("sum", priming={"x": pair(1)})


async def test_versions_that_failed_are_listed_apart(client: AsyncClient) -> None:
    assert {model.version for model in await client.models()} == {"1"}
    assert await client.failed_models() == [("sum", "2", "it has no weights")]


async def test_models_are_loaded_and_unloaded(client: AsyncClient, session: AsyncSession) -> None:
    loaded = await client.load_model("sum")
    assert (loaded.model.version, loaded.took_over) == ("1", True)
    with pytest.raises(ModelFailedError):
        await client.load_model("sum", "2")
    assert await client.unload_model("sum", "1") == 1


# ---- Quotas ----


async def test_a_step_beyond_the_callers_quota_waits_its_turn(
    session: AsyncSession, fake: FakeServer
) -> None:
    fake.refusals = {("mine", 3): [Reason.QUOTA_EXCEEDED] * 3}
    assert await total(session, 1) == 4
    fake.refusals = {("mine", 4): [Reason.QUOTA_EXCEEDED] * 1000}
    with pytest.raises(StepTimeoutError, match="QUOTA_EXCEEDED"):
        await session.step(pair(1), timeout_s=0.05)


async def test_a_session_beyond_the_callers_quota_is_refused(client: AsyncClient, fake: FakeServer) -> None:
    fake.call_errors.append((grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.QUOTA_EXCEEDED))
    with pytest.raises(QuotaExceededError):
        await client.open("sum")


async def test_sessions_that_stay_with_their_version_travel_in_frames_of_their_own(
    client: AsyncClient, fake: FakeServer
) -> None:
    sessions = [await client.open("sum", version=version) for version in ("", "1", "")]
    copies = await sessions[1].fork()
    await asyncio.gather(*(total(session, 1) for session in (*sessions, *copies)))
    assert sorted(len(frame.handles) for frame in fake.frames) == [2, 2]
