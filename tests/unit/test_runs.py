"""While the backend is at one run it has the next one, also of the same sessions."""

import pytest

from service.errors import (
    BackendFailedError,
    IndexUnexpectedError,
    SessionClosedError,
    StateNotFiniteError,
)
from tests.fakes import Caller, Harness, SessionView, sequential
from tests.simulation.twin import POISON


def two_under_way(h: Harness, *values: float, count: int = 2) -> tuple[list[SessionView], list[list[Caller]]]:
    """Sessions of which the backend has two runs, with a step of each in both; and who waits for them."""
    sessions = [h.open() for _ in range(count)]
    first, second = values
    asked = [
        h.offer_frame([(session, index, [value + k], 0) for k, session in enumerate(sessions)])
        for index, value in enumerate((first, second))
    ]
    h.start_run()
    assert len(h.jobs) == 2
    return sessions, asked


def test_a_chunk_runs_right_behind_the_one_before_it_and_both_commit_in_order() -> None:
    h = Harness()
    (session, other), (first, second) = two_under_way(h, 1, 5)
    h.finish_run()
    assert session.next_index == other.next_index == 1
    assert [caller.answer for caller in first] == [[1], [2]]
    assert not any(caller.outcomes for caller in second)
    h.finish_run()
    assert session.next_index == other.next_index == 2
    assert [caller.answer for caller in second] == [sequential([1, 5])[1:], sequential([2, 6])[1:]]
    assert h.model.rows.used == 2


def test_what_follows_reads_the_rows_of_its_own_sessions_in_any_order() -> None:
    h = Harness()
    sessions = [h.open() for _ in range(4)]
    h.offer_frame([(session, 0, [k], 0) for k, session in enumerate(sessions)])
    some = [2, 0, 3, 1]
    asked = h.offer_frame([(sessions[k], 1, [10], 0) for k in some])
    h.start_run()
    assert len(h.jobs) == 2
    h.settle()
    assert [caller.answer for caller in asked] == [sequential([k, 10])[1:] for k in some]


def test_a_run_that_fails_takes_what_follows_along_and_both_may_be_sent_again() -> None:
    h = Harness()
    (session, other), (first, second) = two_under_way(h, 1, 5)
    h.backend.fail_next = True
    h.finish_run()
    assert all(isinstance(caller.error, BackendFailedError) for caller in first)
    assert all(isinstance(caller.error, IndexUnexpectedError) for caller in second)
    assert h.engine.queue.chunks == 0
    assert h.model.rows.used == 2, "what follows still writes into them"
    again = h.send(session, 0, [1])
    h.settle()
    assert again.answer == [1]
    assert (session.next_index, other.next_index) == (1, 0)
    assert h.model.rows.used == 1


def test_a_state_that_is_not_finite_takes_along_what_follows_of_its_session_alone() -> None:
    h = Harness()
    h.backend.poison = {POISON}
    (sick, well), (first, second) = two_under_way(h, POISON, 5)
    h.settle()
    assert isinstance(first[0].error, StateNotFiniteError)
    assert isinstance(second[0].error, IndexUnexpectedError)
    assert second[1].answer == sequential([POISON + 1, 6])[1:]
    assert (sick.next_index, well.next_index) == (0, 2)
    assert h.model.rows.used == 1


@pytest.mark.parametrize("done", [0, 1])
def test_a_session_that_ends_has_its_rows_free_after_the_last_run_that_writes_them(done: int) -> None:
    h = Harness()
    (session, other), asked = two_under_way(h, 1, 5)
    for _ in range(done):
        h.finish_run()
    session.end(SessionClosedError)
    h.settle()
    assert all(isinstance(callers[0].error, SessionClosedError) for callers in asked[done:])
    assert other.next_index == 2
    assert h.model.rows.used == 1


def test_a_run_that_is_smaller_waits_for_others_to_join_it() -> None:
    h = Harness()
    for _ in range(3):
        h.send(h.open(), 0, [1])
    h.start_run()
    late = [h.offer(h.open(), 0, [2]) for _ in range(2)]
    h.start_run()
    assert len(h.jobs) == 1
    late.append(h.offer(h.open(), 0, [2]))
    h.start_run()
    assert len(h.jobs) == 2
    h.settle()
    assert [caller.answer for caller in late] == [[2]] * 3


def test_there_are_two_runs_at_most_and_none_follows_while_an_errand_waits() -> None:
    h = Harness(batch=1)
    for _ in range(3):
        h.send(h.open(), 0, [1])
    h.start_run()
    assert len(h.jobs) == 2
    order: list[int] = []
    h.engine.errand(lambda: lambda: None, lambda _: order.append(len(h.backend.runs)))
    h.settle()
    assert order == [2]
    assert len(h.backend.runs) == 3


def test_the_time_of_a_run_that_follows_begins_when_the_one_before_it_has_ended() -> None:
    h = Harness()
    two_under_way(h, 1, 5, count=1)
    h.now = 3.0
    assert h.engine.running_s() == 3.0
    h.finish_run()
    assert h.engine.running_s() == 0.0
    h.now = 4.0
    assert h.engine.running_s() == 1.0
    h.settle()
    assert h.engine.running_s() == 0.0
    assert h.metric("carousel_queue_duration_seconds_sum", model="fake/1") == 3.0
