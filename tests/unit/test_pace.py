"""How long the next run will take, and which runs are made on the event-loop thread."""

import pytest

from service.batch import Batch
from service.errors import BackendFailedError, SessionClosedError
from service.pace import REMEMBERED, Pace
from tests.cohorts import cohort
from tests.fakes import Harness, sequential

INLINE_S = 0.5


def batch(size: int, longest: int = 1, model: int = 0) -> Batch:
    return Batch(model, (), (), size, longest)


def pace_of(run_s: float = float("inf"), most: int = 4096) -> Pace:
    pace = Pace(run_s)
    for model in (0, 1):
        pace.add_model(model, most)
    return pace


def test_a_size_that_never_ran_may_take_for_ever() -> None:
    pace = pace_of()
    pace.learn(batch(4, 4, 1), 0.1)
    for other in (batch(4, 4, 0), batch(8, 4, 1), batch(4, 8, 1), batch(3, 4, 1), batch(4, 3, 1)):
        assert pace.predict(other) == float("inf")


def test_sizes_up_to_the_next_power_of_two_are_taken_for_one() -> None:
    pace = pace_of()
    pace.learn(batch(4, 9), 0.1)
    for other in (batch(5, 8), batch(7, 15)):
        assert pace.predict(other) == pytest.approx(0.1)


def test_the_newest_runs_count_most() -> None:
    pace, one = pace_of(), batch(1)
    pace.learn(one, 1.0)
    assert pace.predict(one) == pytest.approx(1.0)
    pace.learn(one, 2.0)
    assert pace.predict(one) == pytest.approx(1.2)
    for _ in range(40):
        pace.learn(one, 3.0)
    assert pace.predict(one) == pytest.approx(3.0, rel=1e-3)


# -- how many steps a run has --------------------------------------------------------------------------------------


def test_without_a_time_to_keep_runs_have_as_many_steps_as_they_may() -> None:
    pace = pace_of(most=100)
    pace.learn(batch(1, 100), 50.0)
    assert pace.steps(0) == 100


@pytest.mark.parametrize("step_s", [1e-7, 3e-5, 2e-3, 1.0])
def test_runs_of_long_chunks_come_to_take_the_time_they_are_to_take(step_s: float) -> None:
    pace = pace_of(run_s=0.01, most=512)
    assert pace.steps(0) <= 16, "nobody knows yet"
    for _ in range(20):
        steps = pace.steps(0)
        pace.learn(batch(3, steps), steps * step_s)
    assert pace.steps(0) == {1e-7: 512, 3e-5: 256, 2e-3: 4, 1.0: 1}[step_s], "a power of two"
    assert pace.steps(1) <= 16, "it is another model"


def test_beside_sessions_that_send_single_steps_runs_are_shorter_and_for_a_while_after_them() -> None:
    pace = Pace(0.01, 0.001)
    pace.add_model(0, 512)

    def long_run() -> None:
        pace.learn(batch(1, pace.steps(0)), pace.steps(0) * 3e-5)

    for _ in range(6):
        long_run()
    assert pace.steps(0) == 256
    pace.learn(Batch(0, (cohort([0], 1),), (1,), 1, 1), 1e-4)
    for _ in range(REMEMBERED - 1):
        long_run()
        assert pace.steps(0) == 32
    for _ in range(4):
        long_run()
    assert pace.steps(0) == 256


def test_short_runs_say_nothing_of_long_ones() -> None:
    pace = pace_of(run_s=0.01)
    before = pace.steps(0)
    pace.learn(batch(60, before // 2), 5.0)
    assert pace.steps(0) == before


def test_runs_become_short_at_once_and_long_little_by_little() -> None:
    pace = pace_of(run_s=0.01)
    for _ in range(4):
        pace.learn(batch(1, pace.steps(0)), 1e-6)
    steps = pace.steps(0)
    assert steps == 16 * 2**4
    pace.learn(batch(30, steps), 0.08)
    assert pace.steps(0) == steps // 8


# -- runs on the event-loop thread ----------------------------------------------------------------------------------


def begin(h: Harness, *chunks: list[float]) -> int:
    """Send each to a new session and let the loop turn; returns how many runs are with the dispatcher."""
    for chunk in chunks:
        h.send(h.open(), 0, chunk)
    h.start_run()
    return len(h.jobs)


def test_a_run_that_will_be_short_is_made_at_once_when_nothing_else_is_ready() -> None:
    h = Harness(inline_s=INLINE_S)
    assert begin(h, [1]) == 1, "nobody knows yet how long it takes"
    h.settle()
    session = h.open()
    caller = h.send(session, 0, [7])
    h.start_run()
    assert not h.jobs
    assert caller.answer == [7]
    assert session.next_index == 1


def test_a_run_that_will_be_long_goes_to_the_dispatcher() -> None:
    h = Harness(inline_s=0.0)
    for _ in range(3):
        assert begin(h, [1]) == 1
        h.settle()


def test_while_something_else_is_ready_runs_go_to_the_dispatcher() -> None:
    h = Harness(inline_s=INLINE_S, run_steps=64)
    begin(h, [1], [1] * 40)
    h.settle()
    # Both sizes are known to be short by now.
    assert begin(h, [1], [1] * 40) == 2
    assert len(h.backend.runs) == 2
    h.settle()
    assert begin(h, [1]) == 0, "alone"
    assert len(h.backend.runs) == 5


def test_a_failing_run_on_the_event_loop_thread_is_answered_and_the_service_lives_on() -> None:
    h = Harness(inline_s=INLINE_S)
    begin(h, [1])
    h.settle()
    session = h.open()
    h.backend.fail_next = True
    failed = h.send(session, 0, [2])
    h.start_run()
    assert not h.jobs
    assert isinstance(failed.error, BackendFailedError)
    assert session.next_index == 0
    assert session.row == 0
    assert h.metric("carousel_failed_runs_total", model="fake/1") == 1
    again = h.send(session, 0, [2])
    h.start_run()
    assert not h.jobs
    assert again.answer == [2]


def test_a_chunk_of_many_runs_is_applied_as_a_whole_on_the_event_loop_thread_too() -> None:
    h = Harness(inline_s=INLINE_S, run_steps=2)
    begin(h, [1] * 5)
    h.settle()
    session = h.open()
    whole = h.send(session, 0, [1, 2, 3, 4, 5])
    h.soon.popleft()()
    assert not whole.outcomes
    assert session.next_index == 0
    h.start_run()
    assert not h.jobs
    assert whole.answer == sequential([1, 2, 3, 4, 5])


def test_a_session_that_ends_between_two_runs_on_the_event_loop_thread_frees_its_rows() -> None:
    h = Harness(inline_s=INLINE_S, run_steps=2)
    begin(h, [1] * 4)
    h.settle()
    rows = h.model.rows.used
    session = h.open()
    caller = h.send(session, 0, [1, 2, 3, 4])
    h.soon.popleft()()
    session.end(SessionClosedError)
    h.settle()
    assert isinstance(caller.error, SessionClosedError)
    assert h.model.rows.used == rows
