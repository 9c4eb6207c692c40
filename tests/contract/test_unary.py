"""The unary calls over a real server: what they answer and how they refuse."""

import asyncio

import grpc
import numpy as np
import pytest

from carousel.contract import Contract
from carousel.wire import carousel_pb2 as pb
from tests.wire import answers, attach, converse, open_session, steps, tokens


async def refused(call) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailing = dict(caught.value.trailing_metadata())
    assert trailing["x-request-id"]
    return caught.value.code(), trailing["carousel-reason"], caught.value.details()


async def test_a_unary_step_gives_the_same_bits_as_the_stream(stub) -> None:
    one, other = await open_session(stub), await open_session(stub)
    streamed = answers(await converse(stub, attach(one), steps([0], [0], [[4, 5, 6]])))[0, 0]
    parts = [
        await stub.Step(pb.StepRequest(session=other, first_index=0, length=2, inputs=tokens(4, 5))),
        await stub.Step(pb.StepRequest(session=other, first_index=2, acknowledged=2, inputs=tokens(6))),
    ]
    data = b"".join(part.outputs[0].data for part in parts)
    assert data == streamed.tobytes()
    assert [(part.first_index, part.length) for part in parts] == [(0, 2), (2, 1)]
    assert (parts[0].model, parts[0].version) == ("tiny", "1")


async def test_a_repeated_unary_step_is_applied_once_and_an_unnumbered_one_each_time(stub) -> None:
    session = await open_session(stub)
    request = pb.StepRequest(session=session, first_index=0, inputs=tokens(1))
    assert await stub.Step(request) == await stub.Step(request)
    unnumbered = pb.StepRequest(session=session, inputs=tokens(1))
    assert [(await stub.Step(unnumbered)).first_index for _ in range(2)] == [1, 2]


async def test_two_callers_of_the_same_step_share_one_run(stub) -> None:
    session = await open_session(stub)
    request = pb.StepRequest(session=session, first_index=0, length=4000, inputs=tokens(*[1] * 4000))
    first, second = await asyncio.gather(stub.Step(request), stub.Step(request))
    assert first == second
    assert (await stub.Describe(pb.DescribeRequest(session=session))).next_index == 4000


async def test_a_call_whose_deadline_passes_leaves_the_session_whole(stub, server) -> None:
    session = await open_session(stub)
    request = pb.StepRequest(session=session, first_index=0, length=4000, inputs=tokens(*[1] * 4000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Step(request, timeout=0.003)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await stub.Step(request)).length == 4000
    assert server.engine.queue.chunks == 0


async def test_opening_again_with_the_same_request_id_gives_the_same_session(stub) -> None:
    request = pb.OpenRequest(model="tiny", request_id="r1")
    first = await stub.Open(request)
    assert await stub.Open(request) == first
    assert await stub.Open(pb.OpenRequest(model="tiny", request_id="r2")) != first
    code, reason, _ = await refused(stub.Open(pb.OpenRequest(model="tiny", request_id="r1", session="x")))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTENT_DIFFERS")


async def test_closing_again_with_the_same_request_id_gives_the_same_answer(stub) -> None:
    session = await open_session(stub)
    await stub.Step(pb.StepRequest(session=session, inputs=tokens(1)))
    request = pb.CloseRequest(session=session, request_id="c1")
    assert (await stub.Close(request)).steps == (await stub.Close(request)).steps == 1
    code, reason, message = await refused(stub.Close(pb.CloseRequest(session=session)))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_CLOSED")
    assert "after 1 steps" in message


async def test_the_client_may_choose_the_session_id(stub) -> None:
    assert await open_session(stub, session="my own") == "my own"
    code, reason, _ = await refused(stub.Open(pb.OpenRequest(model="tiny", session="my own")))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "SESSION_EXISTS")


async def test_describe_tells_where_a_session_stands_and_when_it_expires(stub) -> None:
    session = await open_session(stub, time_to_live_s=60)
    await stub.Step(pb.StepRequest(session=session, first_index=0, inputs=tokens(1)))
    described = await stub.Describe(pb.DescribeRequest(session=session))
    assert described.next_index == described.kept_answers == 1
    assert 55 < described.expires_in_s <= 60


async def test_a_session_expires_and_says_so(stub, server) -> None:
    session = await open_session(stub, time_to_live_s=0.01)
    while len(server.engine.table):
        await asyncio.sleep(0.02)
    code, reason, message = await refused(stub.Step(pb.StepRequest(session=session, inputs=tokens(1))))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_EXPIRED")
    assert "expired" in message


async def test_models_are_listed_with_contract_and_limits(stub) -> None:
    (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
    contract = Contract.from_json(model.contract)
    assert (model.name, model.version, contract.invariant) == ("tiny", "1", True)
    assert (model.limits.window_chunks, model.limits.window_bytes) == (8, 1 << 20)


BAD = {
    "an unknown model": (
        lambda stub: stub.Open(pb.OpenRequest(model="nope")),
        "NOT_FOUND MODEL_NOT_FOUND model 'nope' is not served; served are: tiny/1",
    ),
    "an unknown version": (
        lambda stub: stub.Open(pb.OpenRequest(model="tiny", version="7")),
        "NOT_FOUND MODEL_NOT_FOUND model 'tiny/7' is not served",
    ),
    "a negative time-to-live": (
        lambda stub: stub.Open(pb.OpenRequest(model="tiny", time_to_live_s=-1)),
        "INVALID_ARGUMENT INVALID_INPUT time_to_live_s: expected more than 0",
    ),
    "a time-to-live that is no number": (
        lambda stub: stub.Open(pb.OpenRequest(model="tiny", time_to_live_s=float("nan"))),
        "INVALID_ARGUMENT INVALID_INPUT time_to_live_s",
    ),
    "an unknown session": (
        lambda stub: stub.Step(pb.StepRequest(session="nope", inputs=tokens(1))),
        "NOT_FOUND SESSION_NOT_FOUND session 'nope' does not exist",
    ),
    "a session id of 10 MB": (
        lambda stub: stub.Describe(pb.DescribeRequest(session="x" * 10_000_000)),
        "INVALID_ARGUMENT INVALID_INPUT session id: expected at most 128 characters, got 10000000",
    ),
    "a request id of 10 MB": (
        lambda stub: stub.Open(pb.OpenRequest(model="tiny", request_id="x" * 10_000_000)),
        "INVALID_ARGUMENT INVALID_INPUT request id: expected at most 128 characters, got 10000000",
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_call_is_refused_with_what_was_expected_and_what_came(stub, what: str) -> None:
    call, expected = BAD[what]
    assert " ".join([(got := await refused(call(stub)))[0].name, *got[1:]]).startswith(expected)


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        ({"inputs": []}, "tokens: the tensor is missing"),
        ({"inputs": tokens(1, 2)}, "expected 1 x [] x int64 = 8 bytes, came 16"),
        ({"inputs": tokens(-1)}, "tokens: expected tokens 0 to 28, got -1"),
        ({"inputs": tokens(1), "acknowledged": 5}, "acknowledged: expected at most 0"),
    ],
)
async def test_a_bad_step_leaves_its_session_where_it_was(stub, request_fields, message) -> None:
    session = await open_session(stub)
    code, reason, text = await refused(stub.Step(pb.StepRequest(session=session, **request_fields)))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert message in text
    good = await stub.Step(pb.StepRequest(session=session, first_index=0, inputs=tokens(1)))
    assert np.isfinite(np.frombuffer(good.outputs[0].data, "<f4")).all()


async def test_an_index_that_is_not_the_next_names_the_one_expected(stub) -> None:
    session = await open_session(stub)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Step(pb.StepRequest(session=session, first_index=1 << 63, inputs=tokens(1)))
    assert caught.value.code() == grpc.StatusCode.ABORTED
    assert dict(caught.value.trailing_metadata())["carousel-expected-index"] == "0"
