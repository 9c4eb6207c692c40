"""What the engine promises when things go wrong."""

import numpy as np
import pytest

from service.errors import (
    BackendFailedError,
    DrainingError,
    IndexUnexpectedError,
    InvalidInputError,
    SessionClosedError,
    StateNotFiniteError,
)
from tests.fakes import Harness, sequential


def test_sessions_that_are_ready_together_share_one_run() -> None:
    h = Harness(batch=8)
    sessions = [h.open() for _ in range(5)]
    callers = [h.send(session, 0, [k]) for k, session in enumerate(sessions)]
    h.settle()
    assert [caller.answer for caller in callers] == [[k] for k in range(5)]
    assert [len(run.read_rows) for run in h.backend.runs] == [5]


def test_a_failed_run_answers_its_own_batch_and_changes_nothing() -> None:
    h = Harness()
    session, other = h.open(), h.open()
    h.send(session, 0, [3])
    h.settle()
    rows = h.model.rows.used
    h.backend.fail_next = True
    failed, behind = h.send(session, 1, [4]), h.send(session, 2, [5])
    batch_mate = h.send(other, 0, [1])
    h.settle()
    assert isinstance(failed.error, BackendFailedError)
    assert isinstance(batch_mate.error, BackendFailedError)
    assert "purpose" not in str(failed.error)
    assert isinstance(behind.error, IndexUnexpectedError)
    assert behind.error.expected_index == 1
    assert h.model.rows.used == rows
    again = [h.send(session, 1, [4]), h.send(session, 2, [5])]
    h.settle()
    assert [caller.answer[0] for caller in again] == sequential([3, 4, 5])[1:]


def test_a_state_that_is_not_finite_is_refused_and_its_batch_mates_go_on() -> None:
    h = Harness()
    sick, well = h.open(), h.open()
    for session in (sick, well):
        h.send(session, 0, [2])
    h.settle()
    before = h.backend.rows[sick.row].copy()
    h.backend.poison = {13.0}
    refused, behind, fine = h.send(sick, 1, [13]), h.send(sick, 2, [1]), h.send(well, 1, [3])
    h.settle()
    assert isinstance(refused.error, StateNotFiniteError)
    assert isinstance(behind.error, IndexUnexpectedError)
    assert fine.answer == sequential([2, 3])[1:]
    assert (h.backend.rows[sick.row] == before).all()
    assert sick.next_index == 1
    retried = h.send(sick, 1, [4])
    h.settle()
    assert retried.answer == sequential([2, 4])[1:]


def test_a_caller_that_leaves_a_queued_chunk_takes_it_and_the_later_ones_back() -> None:
    h = Harness()
    session = h.open()
    kept = h.send(session, 0, [1])
    h.start_run()
    left, later = h.send(session, 1, [2]), h.send(session, 2, [3])
    left.leave()
    h.settle()
    assert kept.answer == [1]
    assert left.outcomes == []
    assert isinstance(later.error, IndexUnexpectedError)
    assert later.error.expected_index == 1
    assert session.next_index == 1
    assert h.engine.queue.chunks == 0


def test_a_chunk_that_somebody_still_waits_for_stays_when_another_caller_leaves() -> None:
    h = Harness()
    session = h.open()
    left, stays = h.send(session, 0, [1]), h.send(session, 0, [1])
    left.leave()
    h.settle()
    assert left.outcomes == []
    assert stays.answer == [1]


def test_a_running_chunk_commits_although_its_caller_left_and_breaks_nobody() -> None:
    h = Harness()
    session, mate = h.open(), h.open()
    left, other = h.send(session, 0, [1]), h.send(mate, 0, [2])
    h.start_run()
    left.leave()
    h.settle()
    assert left.outcomes == []
    assert other.answer == [2]
    assert session.next_index == 1
    replayed = h.send(session, 0, [1])
    assert replayed.answer == [1]


def test_a_leaving_caller_of_many_chunks_can_leave_them_last_first() -> None:
    h = Harness()
    session = h.open()
    callers = [h.send(session, index, [1]) for index in range(4)]
    for caller in reversed(callers):
        caller.leave()
    h.settle()
    assert all(caller.outcomes == [] for caller in callers)
    assert h.backend.runs == []
    assert session.tail == 0


@pytest.mark.parametrize("running", [False, True])
def test_closing_a_session_tells_whoever_waits_and_frees_its_rows(running: bool) -> None:
    h = Harness()
    session = h.open()
    h.send(session, 0, [1])
    h.settle()
    callers = [h.send(session, 1, [2]), h.send(session, 2, [3])]
    if running:
        h.start_run()
    session.end(SessionClosedError)
    h.settle()
    assert all(isinstance(caller.error, SessionClosedError) for caller in callers)
    assert "after 1 steps" in str(callers[0].error)
    assert h.model.rows.used == 0
    assert h.engine.queue.chunks == 0
    assert isinstance(h.send(session, 1, [2]).error, SessionClosedError)


def test_closing_between_two_runs_of_a_long_chunk_frees_both_rows() -> None:
    h = Harness(run_steps=2)
    session = h.open()
    caller = h.send(session, 0, [1, 2, 3, 4, 5])
    h.start_run()
    h.finish_run()
    session.end(SessionClosedError)
    h.settle()
    assert isinstance(caller.error, SessionClosedError)
    assert h.model.rows.used == 0


def test_the_initial_row_is_shared_and_never_written() -> None:
    h = Harness()
    sessions = [h.open() for _ in range(3)]
    assert {session.row for session in sessions} == {0}
    for session in sessions:
        h.send(session, 0, [9])
    h.settle()
    assert h.backend.rows[0] == 0
    assert len({session.row for session in sessions}) == 3


def test_two_rows_exist_only_while_a_chunk_is_in_flight() -> None:
    h = Harness()
    session = h.open()
    for index in range(3):
        h.send(session, index, [1], acknowledged=index)
        h.start_run()
        assert h.model.rows.used == (1 if index == 0 else 2)
        h.settle()
        assert h.model.rows.used == 1


def test_draining_finishes_what_is_queued_and_refuses_what_is_new() -> None:
    h = Harness()
    session = h.open()
    queued = [h.send(session, 0, [1]), h.send(session, 1, [2])]
    drained: list[bool] = []
    h.engine.drain(lambda: drained.append(True))
    refused, joined = h.send(session, 2, [3]), h.send(session, 0, [1])
    assert not drained
    h.settle()
    assert drained == [True]
    assert [caller.answer[0] for caller in queued] == sequential([1, 2])
    assert joined.answer == [1]
    assert isinstance(refused.error, DrainingError)
    assert h.send(session, 0, [1]).answer == [1]
    with pytest.raises(DrainingError):
        h.engine.rules.check_open()


def test_a_chunk_beyond_the_limit_is_refused_with_the_limit() -> None:
    h = Harness()
    caller = h.send(h.open(), 0, [0.0] * 5000)
    assert isinstance(caller.error, InvalidInputError)
    assert "at most 4096" in str(caller.error)


def test_ragged_chunks_are_padded_by_less_than_half_and_end_at_their_own_step() -> None:
    h = Harness(batch=64, run_steps=64)
    rng = np.random.default_rng(1)
    chunks = [rng.integers(0, 1000, rng.integers(1, 64)).tolist() for _ in range(40)]
    sessions = [h.open() for _ in chunks]
    callers = [h.send(session, 0, chunk) for session, chunk in zip(sessions, chunks, strict=True)]
    h.settle()
    for session, caller, chunk in zip(sessions, callers, chunks, strict=True):
        assert caller.answer == sequential(chunk)
        assert h.backend.rows[session.row, 0] == sequential(chunk)[-1]
    total = sum(len(run.lengths) * run.inputs[0].shape[1] for run in h.backend.runs)
    assert (
        h.metric("carousel_padding_steps_total", model="fake/1") == total - sum(map(len, chunks)) < total / 2
    )
