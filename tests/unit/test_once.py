"""Calls with a request id: made once, whoever asks and whoever leaves."""

import asyncio
import gc
import json

import pytest

from carousel.wire import carousel_pb2 as pb
from service.errors import ContentDiffersError, QueueFullError
from service.identity import Identity, caller
from service.once import Once


class Calls:
    """Counts what is made, and makes it when it is told to."""

    def __init__(self) -> None:
        self.once = Once(pb.CloseResponse)
        self.made = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def make(self) -> pb.CloseResponse:
        await self.go.wait()
        self.made += 1
        if self.error is not None:
            raise self.error
        return pb.CloseResponse(steps=self.made)

    def begin(self, request_id: str = "r", session: str = "a") -> "asyncio.Task[pb.CloseResponse]":
        request = pb.CloseRequest(request_id=request_id, session=session)
        return asyncio.ensure_future(self.once.call(request, lambda: 0.0, self.make))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_repeats_a_call_that_is_under_way_waits_for_it() -> None:
    calls = Calls()
    first = calls.begin()
    await turn()
    second = calls.begin()
    await turn()
    calls.go.set()
    assert await first == await second == await calls.begin()
    assert calls.made == 1


async def test_a_refusal_whose_callers_have_left_is_no_error_of_the_loop() -> None:
    unseen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    calls = Calls()
    calls.error = QueueFullError("full")
    first = calls.begin()
    await turn()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    del first  # it would keep the other alive, and errors are missed when that goes
    calls.go.set()
    await turn()
    gc.collect()
    assert (calls.made, unseen) == (1, [])


async def test_a_call_whose_callers_have_left_is_made_and_remembered() -> None:
    calls = Calls()
    first, second = calls.begin(), calls.begin()
    await turn()
    first.cancel()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    calls.go.set()
    assert (await calls.begin()).steps == 1
    assert calls.made == 1


async def test_other_content_is_refused_while_the_first_is_under_way_and_later() -> None:
    calls = Calls()
    first = calls.begin()
    await turn()
    with pytest.raises(ContentDiffersError):
        await calls.begin(session="b")
    calls.go.set()
    await first
    with pytest.raises(ContentDiffersError):
        await calls.begin(session="b")


async def test_a_call_that_failed_fails_for_all_who_wait_and_can_be_made_again() -> None:
    calls = Calls()
    calls.error = QueueFullError("no room")
    waiting = [calls.begin(), calls.begin()]
    await turn()
    calls.go.set()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in errors] == ["no room"] * 2
    assert errors[0] is not errors[1], "they would share a traceback"
    calls.error = None
    assert (await calls.begin()).steps == 2


async def test_owners_and_calls_without_an_id_have_nothing_in_common() -> None:
    calls = Calls()
    calls.go.set()
    assert (await calls.begin()).steps == 1
    token = caller.set(Identity("you", admin=False))
    assert (await calls.begin()).steps == 2
    caller.reset(token)
    assert [(await calls.begin("")).steps for _ in range(2)] == [3, 4]


async def test_answers_come_through_a_restart() -> None:
    calls, after = Calls(), Calls()
    calls.go.set()
    made = await calls.begin()
    after.once.load(json.loads(json.dumps(calls.once.dump(0.0))), 0.0)
    assert await after.begin() == made
    assert after.made == 0
