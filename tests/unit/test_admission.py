"""What a chunk may count on at the door: the window, the clock, callers that leave, and what is counted."""

import asyncio

import numpy as np
import pytest

from carousel.wire import carousel_pb2 as pb
from service import group, tombstones
from service.api import Api
from service.errors import (
    BackendFailedError,
    ContentDiffersError,
    IndexUnexpectedError,
    InvalidInputError,
    QueueFullError,
    ServiceError,
    SessionClosedError,
    SessionNotFoundError,
    StateNotFiniteError,
    WindowFullError,
)
from service.kept import WINDOW_BYTES, WINDOW_CHUNKS
from service.rules import CHUNK_WAITERS
from service.sessions import SessionTable
from tests.fakes import Answer, Caller, Harness, SessionView, sequential


def step_of(session: SessionView) -> pb.StepRequest:
    x = pb.Tensor(name="x", data=np.float32(1).tobytes())
    return pb.StepRequest(session=session.id, first_index=0, inputs=[x])


def overdue(h: Harness, now: float) -> list[int]:
    return h.table.overdue(now).tolist()


# -- the window ---------------------------------------------------------------------------------------------------


def test_an_acknowledged_answer_gives_its_place_and_its_bytes_back() -> None:
    h = Harness()
    session = h.open()
    h.send(session, 0, [1, 2])
    h.send(session, 2, [3])
    h.settle()
    assert (len(session.kept), session.kept_bytes) == (2, 12)
    h.send(session, 3, [4, 5, 6], acknowledged=2)
    h.settle()
    assert (len(session.kept), session.kept_bytes) == (2, 16)
    assert isinstance(h.send(session, 3, [4, 5, 6], acknowledged=6).error, IndexUnexpectedError)
    assert (len(session.kept), session.kept_bytes) == (0, 0)


@pytest.mark.parametrize("acknowledged", [1, 3, WINDOW_CHUNKS])
def test_the_window_has_room_for_as_many_chunks_more_as_were_acknowledged(acknowledged: int) -> None:
    h = Harness()
    session = h.open()
    for index in range(WINDOW_CHUNKS):
        h.send(session, index, [1])
    h.settle()
    for index in range(WINDOW_CHUNKS, WINDOW_CHUNKS + acknowledged):
        assert h.send(session, index, [1], acknowledged=acknowledged).outcomes == []
        h.settle()
    full = h.send(session, session.tail, [1], acknowledged=acknowledged)
    assert isinstance(full.error, WindowFullError)
    assert f"number {WINDOW_CHUNKS + 1}" in str(full.error)


def test_the_window_has_room_for_as_many_bytes_more_as_were_acknowledged() -> None:
    h = Harness()
    session = h.open()
    h.send(session, 0, [1, 2])
    h.settle()
    # As if earlier answers filled all but one step.
    h.table.window_bytes[session.slot] += WINDOW_BYTES - 12
    assert isinstance(h.send(session, 2, [3, 4]).error, WindowFullError)
    assert h.send(session, 2, [3, 4], acknowledged=2).outcomes == []
    h.settle()
    assert isinstance(h.send(session, 4, [5, 6]).error, WindowFullError)
    assert h.send(session, 4, [5]).outcomes == []


def test_a_chunk_is_forgotten_only_when_its_last_step_is_acknowledged() -> None:
    h = Harness()
    session = h.open()
    h.send(session, 0, [1, 2])
    h.settle()
    assert h.send(session, 0, [1, 2], acknowledged=1).answer == sequential([1, 2])


@pytest.mark.parametrize("repeated", [False, True])
def test_what_was_acknowledged_once_stays_acknowledged(repeated: bool) -> None:
    h = Harness()
    session = h.open()
    for index in range(WINDOW_CHUNKS):
        h.send(session, index, [1], acknowledged=index)
        h.settle()
    # Who says nothing says 0, and so does who sends an early chunk again.
    if repeated:
        assert isinstance(h.send(session, 0, [1]).error, IndexUnexpectedError)
    for index in range(WINDOW_CHUNKS, 2 * WINDOW_CHUNKS - 1):
        h.send(session, index, [1])
        h.settle()
    assert session.next_index == 2 * WINDOW_CHUNKS - 1
    assert [chunk.first for chunk in session.kept] == list(range(WINDOW_CHUNKS - 1, 2 * WINDOW_CHUNKS - 1))
    assert isinstance(h.send(session, 2 * WINDOW_CHUNKS - 1, [1]).error, WindowFullError)


def test_answers_that_are_still_being_made_cannot_be_acknowledged() -> None:
    h = Harness()
    session = h.open()
    h.send(session, 0, [1])
    early = h.send(session, 1, [2], acknowledged=1)
    assert isinstance(early.error, InvalidInputError)
    assert "at most 0" in str(early.error)
    h.settle()
    assert h.send(session, 1, [2], acknowledged=1).outcomes == []


def test_chunks_that_are_queued_take_their_places_in_the_window() -> None:
    h = Harness()
    session = h.open()
    for index in range(WINDOW_CHUNKS):
        assert h.send(session, index, [1]).outcomes == []
    refused = h.send(session, WINDOW_CHUNKS, [1])
    assert isinstance(refused.error, WindowFullError)
    assert f"number {WINDOW_CHUNKS + 1}" in str(refused.error)


def test_the_bytes_of_chunks_that_are_queued_count_in_the_window() -> None:
    h = Harness()
    session = h.open()
    h.table.window_bytes[session.slot] = WINDOW_BYTES - 16  # as if earlier answers filled all but four steps
    h.send(session, 0, [1, 2, 3])
    assert isinstance(h.send(session, 3, [4, 5]).error, WindowFullError)
    assert h.send(session, 3, [4]).outcomes == []


@pytest.mark.parametrize(("free", "fits"), [(8, True), (7, False)])
def test_a_window_may_be_filled_to_the_last_byte_and_no_further(free: int, fits: bool) -> None:
    h = Harness()
    alone, together = h.open(), h.open()
    for session in (alone, together):
        h.table.window_bytes[session.slot] = WINDOW_BYTES - free
    # The second chunk of a session in one frame is decided alone.
    _, second = h.offer_frame([(alone, 0, [1], 0), (alone, 1, [2], 0)])
    both = h.offer(together, 0, [1, 2])
    h.settle()
    for caller in (second, both):
        assert isinstance(caller.outcomes[0], Answer if fits else WindowFullError)


def test_chunks_without_an_index_take_no_place_in_the_window() -> None:
    h = Harness()
    session = h.open()
    for _ in range(WINDOW_CHUNKS + 1):
        h.send(session, None, [1, 1])
    h.table.window_bytes[session.slot] = WINDOW_BYTES - 4
    assert h.send(session, session.tail, [2]).outcomes == []


@pytest.mark.parametrize("where", ["queued", "kept"])
def test_a_chunk_of_another_length_is_another_chunk_whatever_its_digest(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "digests_of", lambda _, lengths: [99] * len(lengths))
    h = Harness()
    session = h.open()
    h.send(session, 0, [1, 1])
    if where == "kept":
        h.settle()
    for length in (1, 3):
        error = h.send(session, 0, [1] * length).error
        assert isinstance(error, ContentDiffersError)
        assert f"2 steps then, {length} now" in str(error)


@pytest.mark.parametrize("running", [False, True])
def test_a_chunk_with_an_index_never_joins_one_without(running: bool) -> None:
    h = Harness()
    session = h.open()
    h.send(session, None, [5])
    if running:
        h.start_run()
    numbered = h.send(session, 0, [5])
    assert isinstance(numbered.error, IndexUnexpectedError)
    assert numbered.error.expected_index == 1
    h.settle()
    assert session.next_index == 1


def test_a_bounded_number_of_callers_waits_for_one_chunk() -> None:
    h = Harness()
    session = h.open()
    callers = [h.send(session, 0, [5]) for _ in range(CHUNK_WAITERS)]
    assert isinstance(h.send(session, 0, [5]).error, QueueFullError)
    left = callers.pop()
    left.leave()
    callers.append(h.send(session, 0, [5]))
    h.settle()
    assert [caller.answer for caller in callers] == [[5]] * CHUNK_WAITERS
    assert h.send(session, 0, [5]).answer == [5]


# -- callers that leave -------------------------------------------------------------------------------------------


def test_leaving_after_the_answer_takes_nothing_from_the_queue() -> None:
    h = Harness()
    session = h.open()
    callers = [h.send(session, index, [index + 1]) for index in range(3)]
    h.start_run()
    h.finish_run()
    assert callers[0].outcomes
    callers[0].leave()
    assert len(session.pending) == 2
    h.settle()
    assert [caller.answer[0] for caller in callers] == sequential([1, 2, 3])
    assert h.metric("carousel_dropped_chunks_total") == 0


@pytest.mark.parametrize("which", ["the one that failed", "the one behind it"])
def test_leaving_after_the_refusal_takes_nothing_from_the_queue(which: str) -> None:
    h = Harness()
    session = h.open()
    h.backend.fail_next = True
    failed, behind = h.send(session, 0, [1]), h.send(session, 1, [2])
    h.settle()
    assert isinstance(failed.error, BackendFailedError)
    assert isinstance(behind.error, IndexUnexpectedError)
    again = [h.send(session, 0, [1]), h.send(session, 1, [2])]
    gone = failed if which == "the one that failed" else behind
    gone.leave()
    h.settle()
    assert [caller.answer[0] for caller in again] == sequential([1, 2])
    assert h.metric("carousel_dropped_chunks_total") == 0


def test_leaving_twice_takes_back_no_chunk_that_was_sent_in_between() -> None:
    h = Harness()
    session = h.open()
    left = h.send(session, 0, [1])
    left.leave()
    stays = h.send(session, 0, [1])
    left.leave()
    h.settle()
    assert stays.answer == [1]


@pytest.mark.parametrize("admitted", [False, True])
async def test_a_unary_call_that_is_cancelled_takes_its_chunk_back(admitted: bool) -> None:
    h = Harness()
    session = h.open()
    call = asyncio.create_task(Api(h.engine, h.metrics, 10.0, 1 << 20).Step(step_of(session), None))
    await asyncio.sleep(0)
    assert h.engine.offered
    if admitted:
        h.engine.admit_offered()
        assert h.engine.queue.chunks == 1
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert h.engine.queue.chunks == 0
    h.settle()
    assert session.next_index == 0
    assert h.backend.runs == []


# -- sessions that are gone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [False, True])
def test_a_session_that_is_gone_keeps_no_answers(running: bool) -> None:
    h = Harness()
    session = h.open()
    h.send(session, 0, [1])
    h.settle()
    h.send(session, 1, [2])
    if running:
        h.start_run()
    session.end(SessionClosedError)
    assert not session.kept
    h.settle()
    assert not session.kept


def test_refusing_the_chunks_of_a_session_that_is_gone_gathers_no_tracebacks() -> None:
    h = Harness()
    session = h.open()
    session.end(SessionClosedError)
    refused = [h.send(session, 0, [1]) for _ in range(100)]
    assert all("was closed" in str(caller.error) for caller in refused)
    assert all(caller.error.__traceback__ is None for caller in refused)


@pytest.mark.parametrize("admitted", [False, True])
async def test_unary_calls_that_the_end_of_a_session_cuts_off_leave_no_traceback_behind(
    admitted: bool,
) -> None:
    h = Harness()
    session = h.open()
    api = Api(h.engine, h.metrics, 10.0, 1 << 20)
    calls = [asyncio.create_task(api.Step(step_of(session), None)) for _ in range(3)]
    await asyncio.sleep(0)
    if admitted:
        h.engine.admit_offered()
    gone = h.engine.end(session.slot, SessionClosedError)
    h.settle()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [SessionClosedError] * 3
    # Each call raised an error of its own: one that all of them raise would collect the frames of all.
    assert len({id(outcome) for outcome in (gone, *outcomes)}) == 4
    assert gone.__traceback__ is None


def test_a_session_with_chunks_in_the_server_is_never_overdue() -> None:
    h = Harness()
    session = h.open(ttl_s=10)
    h.send(session, 0, [1])
    assert overdue(h, 1000.0) == []
    h.now = 1001.0
    h.settle()
    assert overdue(h, 1010.5) == []
    assert overdue(h, 1011.0) == [session.slot]


def test_the_time_to_live_counts_from_the_last_commit() -> None:
    h = Harness()
    session = h.open(ttl_s=10)
    h.now = 8.0
    h.send(session, 0, [1])
    h.start_run()
    h.now = 12.0
    h.settle()
    assert overdue(h, 21.5) == []
    assert overdue(h, 22.0) == [session.slot]


@pytest.mark.parametrize("what", ["a new chunk that is dropped", "a repeated chunk", "a chunk that joins"])
def test_whatever_a_caller_sends_keeps_its_session_alive(what: str) -> None:
    h = Harness()
    session = h.open(ttl_s=10)
    callers: list[Caller] = []
    if what != "a new chunk that is dropped":
        callers.append(h.send(session, 0, [1]))
    if what == "a repeated chunk":
        h.settle()
    h.now = 8.0
    callers.append(h.send(session, 0, [1]))
    if what != "a repeated chunk":
        for caller in callers:
            caller.leave()
    assert not session.pending
    assert overdue(h, 17.5) == []
    assert overdue(h, 18.0) == [session.slot]


def test_an_id_that_is_opened_again_dies_as_young_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstones, "TOMBSTONES", 2)
    table = SessionTable(10)

    def live_and_die(name: str) -> None:
        table.remove(table.open("me", name, 0, 10.0, 0.0), SessionClosedError, 0.0)

    for name in ("again", "once", "again", "last"):
        live_and_die(name)
    with pytest.raises(SessionNotFoundError):
        table.find("me", "once", 0.0)
    for name in ("again", "last"):
        with pytest.raises(SessionClosedError):
            table.find("me", name, 0.0)


# -- what is counted and told -------------------------------------------------------------------------------------


def test_every_queued_chunk_that_leaves_with_its_caller_is_counted() -> None:
    h = Harness()
    session = h.open()
    callers = [h.send(session, index, [1]) for index in range(3)]
    callers[1].leave()
    assert h.metric("carousel_dropped_chunks_total") == 2
    h.settle()
    assert session.next_index == 1


def test_failed_runs_and_states_that_are_not_finite_are_counted_apart() -> None:
    h = Harness()
    session, other = h.open(), h.open()
    h.backend.fail_next = True
    h.send(session, 0, [1])
    h.send(other, 0, [1])
    h.settle()
    model = {"model": "fake/1"}
    assert h.metric("carousel_failed_runs_total", **model) == 1
    assert h.metric("carousel_nonfinite_states_total", **model) == 0
    h.backend.poison = {13.0}
    for one in (session, other):
        h.send(one, 0, [13])
    h.settle()
    assert h.metric("carousel_failed_runs_total", **model) == 1
    assert h.metric("carousel_nonfinite_states_total", **model) == 2
    assert h.metric("carousel_chunks_total", **model) == 0


def test_batches_are_counted_with_their_sessions_and_chunks_with_the_time_until_their_first_run() -> None:
    h = Harness(run_steps=2)
    long, short = h.open(), h.open()
    h.send(long, 0, [1, 2, 3, 4, 5])
    h.now = 0.25
    h.send(short, 0, [1, 2])
    h.now = 1.0
    h.start_run()
    h.now = 9.0
    h.settle()
    sums = {
        name: [h.metric(f"carousel_{name}_{kind}", model="fake/1") for kind in ("count", "sum")]
        for name in ("batch_chunks", "queue_duration_seconds")
    }
    assert sums == {"batch_chunks": [3, 2 + 1 + 1], "queue_duration_seconds": [2, 1.0 + 0.75]}


def test_a_state_that_is_not_finite_is_told_with_the_steps_of_the_run_that_made_it() -> None:
    h = Harness(run_steps=4)
    session = h.open()
    h.send(session, 0, [1, 2, 3])
    h.settle()
    h.backend.poison = {13.0}
    refused = h.send(session, 3, [1, 1, 1, 1, 1, 1, 13, 1, 1, 1])
    h.settle()
    assert isinstance(refused.error, StateNotFiniteError)
    assert str(refused.error).startswith("steps 7 to 9 would make the state NaN or infinite")


def test_a_chunk_behind_one_that_was_cancelled_is_told_its_own_index_and_the_one_expected() -> None:
    h = Harness()
    session = h.open()
    left, later = h.send(session, 0, [1, 2]), h.send(session, 2, [3])
    left.leave()
    error: ServiceError = later.error
    assert str(error).startswith("first index: expected 0, got 2")
