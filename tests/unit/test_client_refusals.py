"""The client while the server refuses: what passes is tried again in order, what stays is told."""

import asyncio

import grpc
import pytest

from carousel.client import (
    AsyncClient,
    ContentDiffersError,
    EarlierStepFailedError,
    IndexUnexpectedError,
    InvalidInputError,
    ServerFailedError,
    SessionGoneError,
    StateNotFiniteError,
    StepTimeoutError,
)
from carousel.wire.carousel_pb2 import Reason
from tests.unit.fake_server import FakeServer
from tests.unit.stepping import pair, total

# ---- Refusals that pass ----


@pytest.mark.parametrize("reason", [Reason.QUEUE_FULL, Reason.WINDOW_FULL])
async def test_a_refusal_that_passes_is_tried_again_in_order(
    client: AsyncClient, fake: FakeServer, reason: int
) -> None:
    session = await client.open("sum")
    fake.refusals = {(session.id, 1): [reason, reason], (session.id, 4): [reason]}
    answers = await asyncio.gather(*(total(session, 10.0**k) for k in range(6)))
    assert answers == [1, 11, 111, 1111, 11111, 111111]


async def test_a_refusal_delays_no_other_session(client: AsyncClient, fake: FakeServer) -> None:
    stuck, free = await client.open("sum"), await client.open("sum")
    fake.refusals = {(stuck.id, 0): [Reason.QUEUE_FULL] * 1000}
    step = asyncio.create_task(total(stuck, 1))
    for k in range(20):
        assert await total(free, 1) == k + 1
    assert not step.done()
    fake.refusals.clear()
    assert await step == 1


async def test_a_refusal_that_stays_ends_in_a_timeout_that_names_it(
    client: AsyncClient, fake: FakeServer
) -> None:
    session = await client.open("sum")
    fake.refusals = {(session.id, 0): [Reason.QUEUE_FULL] * 1000}
    with pytest.raises(StepTimeoutError, match="fake QUEUE_FULL"):
        await session.step(pair(1), timeout_s=0.05)
    assert fake.sent <= 5, "tries are spaced out"
    fake.refusals.clear()
    assert await total(session, 1) == 2
    fake.answering.clear()
    with pytest.raises(StepTimeoutError, match="the server has not answered"):
        await session.step(pair(1), timeout_s=0.02)


async def test_a_server_that_is_going_down_is_left_for_a_new_connection(
    client: AsyncClient, fake: FakeServer
) -> None:
    session, other = await client.open("sum"), await client.open("sum")
    fake.refusals = {(session.id, 0): [Reason.DRAINING]}
    assert await asyncio.gather(total(session, 1), total(other, 1)) == [1, 1]
    assert await total(session, 1) == 2
    assert fake.streams == 2


async def test_an_attachment_refused_for_now_is_tried_again(client: AsyncClient, fake: FakeServer) -> None:
    fake.attach_refusals = [Reason.DRAINING, Reason.DRAINING]
    session, other = await client.open("sum"), await client.open("sum")
    answers = await asyncio.gather(*(total(session, 1) for _ in range(3)), total(other, 1))
    assert answers == [1, 2, 3, 1]


# ---- Refusals that stay ----


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.INVALID_INPUT, InvalidInputError),
        (Reason.STATE_NOT_FINITE, StateNotFiniteError),
        (Reason.BACKEND_FAILED, ServerFailedError),
        (Reason.CONTENT_DIFFERS, ContentDiffersError),
    ],
)
async def test_a_step_that_fails_takes_the_later_ones_with_it_and_the_session_goes_on(
    client: AsyncClient, fake: FakeServer, reason: int, kind: type[Exception]
) -> None:
    session = await client.open("sum")
    fake.refusals = {(session.id, 1): [reason]}
    outcomes = await asyncio.gather(*(total(session, 1) for _ in range(12)), return_exceptions=True)
    assert outcomes[0] == 1
    assert type(outcomes[1]) is kind
    assert getattr(outcomes[1], "reason", None) == reason
    assert {type(outcome) for outcome in outcomes[2:]} == {EarlierStepFailedError}
    assert "step 11 was not applied, since step 1 failed" in str(outcomes[11])
    assert session.next_index == 1
    assert await asyncio.gather(*(total(session, 10) for _ in range(12))) == [
        1 + 10 * k for k in range(1, 13)
    ]


async def test_an_answer_to_a_failed_step_is_not_taken_for_that_of_its_successor(
    client: AsyncClient, fake: FakeServer
) -> None:
    session = await client.open("sum")
    fake.refusals = {(session.id, 0): [Reason.INVALID_INPUT]}
    first = [asyncio.create_task(total(session, 1)) for _ in range(2)]
    with pytest.raises(InvalidInputError):
        await first[0]
    fresh = [asyncio.create_task(total(session, 5)) for _ in range(2)]
    with pytest.raises(EarlierStepFailedError):
        await first[1]
    assert await asyncio.gather(*fresh) == [5, 10]


async def test_an_index_taken_by_somebody_else_is_told_and_the_session_goes_on_from_there(
    client: AsyncClient, fake: FakeServer
) -> None:
    session = await client.open("sum", session="shared")
    await total(await client.attach("shared"), 5)
    fake.sessions["shared"].kept.clear()
    with pytest.raises(IndexUnexpectedError) as caught:
        await total(session, 1)
    assert caught.value.expected_index == 1
    assert await total(session, 1) == 6


async def test_a_session_that_is_gone_fails_every_step_with_the_reason(
    client: AsyncClient, fake: FakeServer
) -> None:
    session = await client.open("sum")
    fake.refusals = {(session.id, 0): [Reason.SESSION_EXPIRED]}
    outcomes = await asyncio.gather(*(total(session, 1) for _ in range(3)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, SessionGoneError)
        assert outcome.reason == Reason.SESSION_EXPIRED
    with pytest.raises(SessionGoneError):
        await total(session, 1)


async def test_a_session_lost_while_the_connection_was_down_is_told_when_it_is_attached_again(
    client: AsyncClient, fake: FakeServer
) -> None:
    session, other = await client.open("sum"), await client.open("sum")
    await total(session, 1)
    fake.cuts = [(False, grpc.StatusCode.UNAVAILABLE)]
    del fake.sessions[session.id]
    outcomes = await asyncio.gather(total(session, 1), total(other, 1), return_exceptions=True)
    assert isinstance(outcomes[0], SessionGoneError)
    assert outcomes[1] == 1
