"""Frames and calls that nobody should send, and bytes that are neither: the server lives on, and so does who behaves.

Hypothesis builds whole conversations, right ones among them; the bytes go over generic calls, so that no stub stands in
the way.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings

from carousel.wire import carousel_pb2 as pb
from service.status import STATUS
from tests.fuzz.beside import Beside
from tests.fuzz.calls import METHODS, Call, requests
from tests.fuzz.frames import conversations
from tests.whole import TARGET
from tests.wire import V

SERVICE = "/carousel.v1.Carousel/"
REFUSALS = {
    (code, pb.Reason.Name(reason)) for code, reason in STATUS.values() if code is not grpc.StatusCode.INTERNAL
}
STEP_BYTES = {"tiny": 4 * V, "reads": 4 * len(TARGET), "growth": 4 * 3, "": 0}
"""Of the answer to one step. A frame of refusals alone is nobody's."""


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    with asyncio.Runner() as runner:
        made = runner.run(Beside.start(runner.get_loop(), tmp_path_factory.mktemp("beside")))
        yield made
        runner.run(made.end())


# -- streams ------------------------------------------------------------------------------------------------------


async def say(beside: Beside, said: list[bytes]) -> None:
    await beside.open_others()
    call: Any = beside.channel.stream_stream(f"{SERVICE}Stream")()
    try:
        for message in said:
            await call.write(message)
        await call.done_writing()
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        pass  # the server has ended the stream already, and the status says how
    heard = []
    async with asyncio.timeout(20):
        try:
            async for message in call:
                heard.append(pb.StreamResponse.FromString(message))  # noqa: PERF401 - what came before an error counts
        except grpc.aio.AioRpcError:
            pass  # its code is looked at below
        code = await call.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), await call.details()
    check_outcomes(said, heard, ended_well=code is grpc.StatusCode.OK)
    await beside.check()


def check_outcomes(said: list[bytes], heard: list[pb.StreamResponse], *, ended_well: bool) -> None:
    """Every chunk has one outcome, unless a frame ended the stream; then those before it have one at most."""
    sent = [parsed(message) for message in said]
    if ended_well:
        assert None not in sent
    asked = Counter(handle for request in sent if request for handle in request.steps.handles)
    told = Counter(handle for response in heard for handle in response.answers.handles)
    attached = sum(response.HasField("attached") for response in heard)
    if ended_well:
        assert told == asked
        assert attached == sum(request.HasField("attach") for request in sent if request)
    else:
        assert told <= asked
    for response in heard:
        frame = response.answers
        refused = {error.position: error for error in frame.errors}
        assert [length == 0 for length in frame.lengths] == [k in refused for k in range(len(frame.lengths))]
        assert all(error.code not in (0, 2, 13) and error.message for error in frame.errors)
        assert sum(len(tensor.data) for tensor in frame.outputs) == STEP_BYTES[frame.model] * sum(
            frame.lengths
        )


def parsed(message: bytes) -> pb.StreamRequest | None:
    try:
        return pb.StreamRequest.FromString(message)
    except DecodeError:
        return None


# -- calls --------------------------------------------------------------------------------------------------------


async def ask(beside: Beside, asked: list[list[Call]]) -> None:
    await beside.open_others()
    for together in asked:
        outcomes = await asyncio.gather(*(outcome(beside, one) for one in together), return_exceptions=True)
        for failure in outcomes:  # raised when all have ended: what is under way would be cut off
            if failure is not None:
                raise failure
    await beside.check()


async def outcome(beside: Beside, asked: Call) -> None:
    """Ask, and look at the status."""
    message = asked.message(beside)
    how = beside.channel.unary_stream if asked.method == "Generate" else beside.channel.unary_unary
    call: Any = how(f"{SERVICE}{asked.method}")(message, timeout=20)
    if asked.leaves:
        await asyncio.sleep(0.001)
        call.cancel()
    elif asked.method == "Generate":
        with suppress(grpc.aio.AioRpcError):  # its code is looked at below
            while await call.read() is not grpc.aio.EOF:
                pass
    code = await call.code()
    if asked.leaves and code is grpc.StatusCode.CANCELLED:
        return
    reason = dict(await call.trailing_metadata() or ()).get("carousel-reason")
    assert code is grpc.StatusCode.OK or (code, reason) in REFUSALS, (
        asked.method,
        code,
        await call.details(),
    )


# -- laws ---------------------------------------------------------------------------------------------------------

checked = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@settings(checked, max_examples=150)
@given(said=conversations())
def test_whatever_is_said_on_a_stream_harms_nobody(beside: Beside, said: list[bytes]) -> None:
    beside.loop.run_until_complete(say(beside, said))


@settings(checked, max_examples=150)
@given(asked=requests())
def test_whatever_is_asked_by_calls_harms_nobody(beside: Beside, asked: list[list[Call]]) -> None:
    beside.loop.run_until_complete(ask(beside, asked))


def test_every_call_of_the_service_is_asked() -> None:
    service = pb.DESCRIPTOR.services_by_name["Carousel"]
    assert {"Stream", *METHODS} == {method.name for method in service.methods}


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(checked, max_examples=6_000)
@given(said=conversations(), asked=requests())
def test_whatever_is_said_for_minutes_harms_nobody(
    beside: Beside, said: list[bytes], asked: list[list[Call]]
) -> None:
    beside.loop.run_until_complete(say(beside, said))
    beside.loop.run_until_complete(ask(beside, asked))
