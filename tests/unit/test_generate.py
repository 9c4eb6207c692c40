"""Generations against an engine that the test turns: what stops them, and that nothing is done twice."""

import asyncio
import json
import random

import pytest

from carousel.wire import carousel_pb2 as pb
from service import generate, generations
from service.errors import (
    BackendFailedError,
    ContentDiffersError,
    DrainingError,
    IndexUnexpectedError,
    InvalidInputError,
    QuotaExceededError,
)
from service.generate import Past
from service.generations import Generations
from service.identity import Identity, caller
from service.quotas import Account, Quota
from tests.unit.token_fakes import Line, TokenHarness, V


async def unbroken(**fields: object) -> list[int]:
    """What a call makes that nothing happens to."""
    h, line = TokenHarness(), Line()
    h.open("s")
    call = h.generate(line, **fields)
    await h.rest()
    call.result()
    return line.tokens


async def cancelled(call: "asyncio.Task[None]") -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_client_that_does_not_read_stops_the_stepping_and_then_gets_many_tokens_at_once() -> None:
    h, line = TokenHarness(), Line(reads=False)
    session = h.open("s")
    call = h.generate(line)
    await h.rest()
    assert session.next_index == 3 + generate.UNREAD_TOKENS - 1
    line.reads.set()
    await h.rest()
    call.result()
    assert line.tokens == await unbroken()
    assert len(line.written) < 200
    assert line.written[-1].finish == pb.GenerateResponse.MAX_TOKENS


async def test_of_two_that_read_along_the_faster_one_says_how_far_to_go() -> None:
    h, slow, fast = TokenHarness(), Line(reads=False), Line()
    h.open("s")
    calls = [h.generate(slow), h.generate(fast)]
    await h.rest()
    calls[1].result()
    assert fast.tokens == await unbroken()
    assert not calls[0].done()
    slow.reads.set()
    await h.rest()
    calls[0].result()
    assert slow.tokens == fast.tokens


async def test_the_first_of_two_callers_may_leave() -> None:
    h, one, other = TokenHarness(), Line(), Line()
    h.open("s")
    first, second = h.generate(one), h.generate(other)
    await h.turns(100)
    await cancelled(first)
    await h.rest()
    second.result()
    assert 0 < len(one.tokens) < len(other.tokens)
    assert other.tokens == await unbroken()


async def test_however_often_and_wherever_it_is_cut_off_every_token_is_made_once() -> None:
    expected = await unbroken(max_tokens=30)
    for seed in range(40):
        chance = random.Random(seed)
        h = TokenHarness(run_steps=2)
        session = h.open("s")
        told: list[int] = []
        while len(told) < 30:
            line = Line()
            call = h.generate(line, max_tokens=30)
            await h.turns(chance.choice([1, 2, 3, 5, 8, 40]))
            if not call.done():
                await cancelled(call)
            await h.turns(chance.randrange(4))
            told = max(told, line.tokens, key=len)
            assert line.tokens == expected[: len(line.tokens)]
        await h.rest()
        assert told == expected
        assert session.next_index == 3 + 29
        assert h.metric("carousel_steps_total", model="fake/1") == 3 + 29
        assert h.metric("carousel_generated_tokens_total", model="fake/1") == 30


async def test_a_step_that_ran_while_the_caller_left_is_found_again_and_not_made_again() -> None:
    h, line = TokenHarness(), Line()
    session = h.open("s")
    call = h.generate(line, max_tokens=3)
    while not h.jobs:
        await h.turns(1)
    await cancelled(call)
    h.settle()
    assert (session.next_index, line.tokens) == (3, [])
    await h.rest()
    assert session.next_index == 3
    again = Line()
    h.generate(again, max_tokens=3)
    await h.rest()
    assert again.tokens == await unbroken(max_tokens=3)
    assert (h.metric("carousel_replays_total"), session.next_index) == (1, 5)


async def test_another_caller_at_the_same_index_ends_a_generation() -> None:
    h, line = TokenHarness(), Line(reads=False)
    session = h.open("s")
    call = h.generate(line)
    await h.rest()
    index = session.next_index
    other = (line.tokens or [0])[-1]
    h.engine.offer(
        h.model,
        _Nobody(),
        [session.slot],
        [session.serial],
        [index],
        [2],
        [index],
        [bytes([other]) + bytes(15)],
    )
    line.reads.set()
    await h.rest()
    with pytest.raises(IndexUnexpectedError, match="another caller steps the session") as caught:
        call.result()
    assert caught.value.expected_index == session.next_index == index + 2
    assert line.tokens == (await unbroken())[: generate.UNREAD_TOKENS]


async def test_answers_that_are_no_numbers_end_a_generation_and_repeating_it_feeds_nothing_again() -> None:
    h = TokenHarness()
    session = h.open("s")
    h.backend.mute = True
    for _ in range(2):
        call = h.generate(Line())
        await h.rest()
        with pytest.raises(BackendFailedError, match="step 2: no token can be drawn"):
            call.result()
        assert session.next_index == 3


async def test_a_quota_of_steps_slows_a_generation_down_and_refuses_only_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generate, "QUOTA_PAUSE_S", 0)
    expected = await unbroken(max_tokens=40)
    h, line, account = TokenHarness(), Line(), Account()
    account.quota = Quota(steps_per_s=10)
    h.open("s")
    late_session = h.open("late")
    caller.set(Identity("anonymous", admin=False, account=account))
    call = h.generate(line, max_tokens=40)
    await h.turns(1000)
    assert len(line.tokens) == 8  # 3 steps for the first of them, 7 for the others
    late = h.generate(Line(), session="late", request_id="late", max_tokens=1)
    await h.turns(10)
    with pytest.raises(QuotaExceededError):
        late.result()
    for _ in range(40):
        h.advance(0.1)
        await h.turns(50)
    call.result()
    assert line.tokens == expected
    # Nothing was fed to it, so it begins where its session stands when it is asked for again.
    slot, serial = late_session.slot, late_session.serial
    h.engine.offer(h.model, _Nobody(), [slot], [serial], None, [2], None, [bytes(16)])
    h.advance(1)
    again = Line()
    h.generate(again, session="late", request_id="late", max_tokens=1)
    await h.rest()
    assert again.written[0].first_index == 2 + 3


async def test_another_version_takes_over_between_two_tokens_and_messages_say_which_it_was() -> None:
    h, line = TokenHarness(), Line(reads=False)
    h.open("s")
    h.generate(line, max_tokens=100)
    await h.rest()
    h.swap(factor=33)
    line.reads.set()
    await h.rest()
    assert line.tokens[: generate.UNREAD_TOKENS] == (await unbroken())[: generate.UNREAD_TOKENS]
    assert line.tokens != await unbroken(max_tokens=100)
    assert [response.version for response in line.written][-1] == "2"
    assert h.metric("carousel_generated_tokens_total", model="fake/1") == generate.UNREAD_TOKENS
    assert h.metric("carousel_generated_tokens_total", model="fake/2") == 100 - generate.UNREAD_TOKENS


async def test_what_a_restart_takes_along_goes_on_though_it_is_refused_at_first() -> None:
    h, line = TokenHarness(), Line(reads=False)
    session = h.open("s")
    call = h.generate(line, max_tokens=100)
    await h.rest()
    await cancelled(call)
    await h.rest()
    stood = session.next_index
    for draining in (True, True, False):
        h.calls.load_generations(json.loads(json.dumps(h.calls.dump_generations())))
        h.engine.rules.draining = draining
        again = Line()
        call = h.generate(again, max_tokens=100)
        await h.rest()
        if draining:
            with pytest.raises(DrainingError):
                call.result()
            assert (len(again.tokens), session.next_index) == (generate.UNREAD_TOKENS, stood)
    assert again.tokens == await unbroken(max_tokens=100)
    assert session.next_index == 3 + 99


async def test_a_generation_without_an_index_stands_behind_what_came_before_in_the_same_turn() -> None:
    h, line = TokenHarness(), Line()
    session = h.open("s")
    h.engine.offer(h.model, _Nobody(), [session.slot], [session.serial], [0], [2], None, [bytes(16)])
    call = h.generate(line, max_tokens=1)
    await h.rest()
    call.result()
    assert (line.written[0].first_index, session.next_index) == (2 + 3, 5)


async def test_a_token_outside_the_vocabulary_is_refused_before_anything_is_fed() -> None:
    h = TokenHarness()
    session = h.open("s")
    call = h.generate(Line(), prompt=[1, V])
    await h.rest()
    with pytest.raises(InvalidInputError, match=f"prompt: expected tokens 0 to {V - 1}, got {V}"):
        call.result()
    assert session.next_index == 0


def test_records_are_bounded_in_number_in_tokens_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "RECORDS", 3)
    monkeypatch.setattr(generations, "RECORD_TOKENS", 100)
    records = Generations()

    def of(count: int) -> Past:
        return Past(1, 0, 0, [0] * count)

    def known(now: float) -> str:
        return "".join(name for name in "abcdef" if records.find("o", name, b"", now) is not None)

    for name in "abcd":
        records.keep("o", name, b"", of(10), 0.0)
    assert known(0.0) == "bcd"
    records.keep("o", "b", b"", records.find("o", "b", b"", 1.0), 1.0)
    records.keep("o", "e", b"", of(10), 2.0)
    assert known(2.0) == "bde"
    records.keep("o", "f", b"", of(85), 3.0)
    assert known(3.0) == "ef"
    records.keep("o", "a", b"", of(1000), 4.0)
    assert known(4.0) == "a"
    assert known(4.0 + generations.RECORD_S) == "a"
    assert known(4.1 + generations.RECORD_S) == ""
    assert records.find("another", "a", b"", 4.0) is None
    with pytest.raises(ContentDiffersError):
        records.find("o", "a", b"other", 4.0)
    records.keep("o", "", b"", of(1), 5.0)
    assert records.find("o", "", b"", 5.0) is None


class _Nobody:
    """A caller that is not interested."""

    left = False

    def __init__(self) -> None:
        self.waits: list[object] = []

    def answered(self, answers: object) -> None:
        pass
