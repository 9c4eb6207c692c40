"""A version takes over from another: at a chunk boundary, once, and never from a session that asked for its version."""

import numpy as np
import pytest

from service.cohort import Answers
from service.errors import InvalidInputError, ModelNotFoundError, SessionClosedError
from service.frame import FrameCaller, Item, frames, message
from service.handles import Handles
from service.repository import ServedModel
from service.rows import RowAllocator
from service.swap import abandoned, sessions_of, take_over, unload
from tests.fakes import FACTOR, Caller, FakeBackend, Harness, SessionView, contract, sequential
from tests.unit.test_handles import attach

TUNED = 37


def versions_of(*callers: Caller) -> list[str]:
    return [caller.outcomes[0].version for caller in callers]


def pin(session: SessionView) -> SessionView:
    session.engine.table.pinned[session.slot] = True
    return session


def see_off(h: Harness) -> list[str]:
    """Unload whatever nobody needs."""
    gone = abandoned(h.engine)
    for model in gone:
        unload(h.engine, model)
        model.backend.close()
    return [model.key for model in gone]


def test_a_session_goes_on_with_its_state_and_the_new_weights() -> None:
    h = Harness()
    session = h.open()
    before = h.send(session, 0, [1, 2, 3])
    h.settle()
    h.swap(TUNED)
    after = h.send(session, 3, [4, 5])
    h.settle()
    assert before.answer == sequential([1, 2, 3])
    assert after.answer == sequential([4, 5], before.answer[-1], TUNED)
    assert versions_of(before, after) == ["1", "2"]
    assert h.model.rows.used == 1


def test_what_was_sent_before_stays_with_the_version_before_and_the_next_chunk_is_of_the_new_one() -> None:
    h = Harness()
    session = h.open()
    queued = [h.send(session, 0, [1.0]), h.send(session, 1, [2.0])]
    offered = h.offer(session, 2, [3.0])
    h.swap(TUNED)
    later = h.send(session, 3, [4.0])
    h.settle()
    old = sequential([1, 2, 3])
    assert [caller.answer for caller in (*queued, offered)] == [[y] for y in old]
    assert later.answer == sequential([4], old[-1], TUNED)
    assert versions_of(*queued, offered, later) == ["1", "1", "1", "2"]


@pytest.mark.parametrize("runs_before", [1, 2, 3])
def test_a_long_chunk_that_has_begun_ends_with_the_version_it_began_with(runs_before: int) -> None:
    h = Harness(run_steps=2)
    session, other = h.open(), h.open()
    long = h.send(session, 0, [float(x) for x in range(8)])
    for _ in range(runs_before):
        h.start_run()
        h.finish_run()
    assert not long.outcomes
    h.swap(TUNED)
    short = h.send(other, 0, [5.0, 6.0])
    later = h.send(session, 8, [9.0])
    h.settle()
    assert long.answer == sequential([float(x) for x in range(8)])
    assert short.answer == sequential([5, 6], factor=TUNED)
    assert later.answer == sequential([9], long.answer[-1], TUNED)
    assert versions_of(long, short, later) == ["1", "2", "2"]


def test_a_run_that_is_under_way_commits_what_its_version_gave() -> None:
    h = Harness()
    session = h.open()
    running = h.send(session, 0, [1.0])
    h.start_run()
    h.swap(TUNED)
    h.settle()
    assert running.answer == sequential([1])
    assert versions_of(running) == ["1"]


def test_chunks_of_two_versions_never_share_a_run() -> None:
    h = Harness()
    sessions = [h.open() for _ in range(4)]
    old = [h.send(session, 0, [1.0]) for session in sessions[:2]]
    h.swap(TUNED)
    new = [h.send(session, 0, [1.0]) for session in sessions[2:]]
    h.settle()
    assert [caller.answer for caller in old] == [sequential([1])] * 2
    assert [caller.answer for caller in new] == [sequential([1], factor=TUNED)] * 2
    assert [len(run.lengths) for run in h.backend.runs] == [2, 2]


def test_a_session_that_asked_for_its_version_stays_with_it() -> None:
    h = Harness()
    session = pin(h.open())
    first = h.send(session, 0, [1.0])
    h.settle()
    h.swap(TUNED)
    h.swap(TUNED + 2)
    second = h.send(session, 1, [2.0])
    h.settle()
    assert [*first.answer, *second.answer] == sequential([1, 2])
    assert versions_of(first, second) == ["1", "1"]
    assert sessions_of(h.engine) == [1, 0, 0]


def test_a_kept_answer_names_the_version_that_gave_it() -> None:
    h = Harness()
    session = h.open()
    first = h.send(session, 0, [1.0])
    h.settle()
    h.swap(TUNED)
    again = h.send(session, 0, [1.0])
    h.settle()
    assert again.answer == first.answer
    assert versions_of(again) == ["1"]


def test_a_chunk_joined_after_the_swap_is_answered_by_the_version_it_was_sent_to() -> None:
    h = Harness()
    session = h.open()
    first = h.send(session, 0, [1.0])
    h.swap(TUNED)
    again = h.send(session, 0, [1.0])
    h.settle()
    assert again.answer == first.answer == sequential([1])
    assert versions_of(first, again) == ["1", "1"]


def test_going_back_is_a_swap_like_any_other() -> None:
    h = Harness()
    session, first = h.open(), h.model
    h.swap(TUNED)
    tuned = h.send(session, 0, [1.0, 2.0])
    h.settle()
    take_over(h.engine, first)
    back = h.send(session, 2, [3.0])
    h.settle()
    assert back.answer == sequential([3], tuned.answer[-1])
    assert versions_of(tuned, back) == ["2", "1"]
    assert h.engine.models.find("fake") is first


def test_a_version_goes_when_its_last_session_and_its_last_chunk_have() -> None:
    h = Harness()
    first = h.model
    stays, moves = pin(h.open()), h.open()
    h.send(moves, 0, [1.0])
    h.swap(TUNED)
    assert see_off(h) == []
    stays.end(SessionClosedError)
    assert see_off(h) == [], "a chunk is queued"
    h.settle()
    assert see_off(h) == ["fake/1"]
    assert first.backend.closed
    assert [model.key for model in h.engine.models] == ["fake/2"]
    after = h.send(moves, 1, [2.0])
    h.settle()
    assert after.answer == sequential([2], 1.0, TUNED)
    assert see_off(h) == []


def test_the_answers_of_a_version_that_is_gone_are_still_given_again() -> None:
    h = Harness()
    session = h.open()
    first = h.send(session, 0, [1.0, 2.0])
    h.settle()
    h.swap(TUNED)
    assert see_off(h) == ["fake/1"]
    again = h.send(session, 0, [1.0, 2.0])
    h.settle()
    assert again.answer == first.answer
    assert versions_of(again) == ["1"]


def test_another_signature_takes_the_new_sessions_and_leaves_the_others() -> None:
    h = Harness()
    session, first = h.open(), h.model
    other = ServedModel("fake", "2", contract("other"), FakeBackend(400, 1), RowAllocator(400), 1)
    h.engine.add(other)
    assert take_over(h.engine, other) == 0
    old = h.send(session, 0, [1.0])
    h.model = other
    new = h.send(h.open(), 0, [1.0])
    h.settle()
    assert versions_of(old, new) == ["1", "2"]
    assert (first.rows.used, other.rows.used) == (1, 1)
    session.end(SessionClosedError)
    h.settle()
    assert see_off(h) == ["fake/1"]
    assert h.engine.kept._arenas[0].items == []
    with pytest.raises(ModelNotFoundError, match="'fake/1' is not served; served are: fake/2"):
        h.engine.models.find("fake", "1")


def test_handles_that_were_given_before_find_the_version_that_serves_now() -> None:
    h = Harness()
    session, stays, gone = h.open("moves"), pin(h.open("stays")), h.open("gone")
    first, handles = h.model, Handles(h.engine, "anonymous")
    attach(handles, session, stays, gone)
    gone.end(SessionClosedError)
    assert handles.look_up([0, 2])[2] is handles.look_up([1])[2] is first
    second = h.swap(TUNED)
    assert handles.look_up([0])[2] is second
    assert handles.look_up([1])[2] is first
    assert handles.look_up([0, 2])[2] is second
    stays.end(SessionClosedError)
    take_over(h.engine, first)
    take_over(h.engine, second)
    assert handles.look_up([0, 1, 2])[2] is second


def test_a_frame_that_a_swap_would_part_is_refused_before_it_does() -> None:
    h = Harness()
    session, stays = h.open(), pin(h.open())
    handles = Handles(h.engine, "anonymous")
    attach(handles, session, stays)
    message = "^frame: expected sessions of one model, got fake/1, fake/1 that was asked for$"
    with pytest.raises(InvalidInputError, match=message):
        handles.look_up([0, 1])


def test_rows_of_sessions_of_all_versions_leave_for_the_same_file() -> None:
    h = Harness(sessions=40, queue_chunks=4, resident=8, batch=4)
    sessions = [h.open() for _ in range(30)]
    pinned = [pin(session) for session in sessions[::3]]
    states = dict.fromkeys(sessions, 0.0)
    for index, factor in enumerate((FACTOR, TUNED, TUNED + 2)):
        if index:
            h.swap(factor)
        for session, state in states.items():
            caller = h.send(session, index, [float(session.slot)], index)
            h.settle()
            assert caller.answer == sequential([session.slot], state, FACTOR if session in pinned else factor)
            (states[session],) = caller.answer
    assert h.model.rows.used <= 8 + 4
    assert np.count_nonzero(h.table.row[: len(sessions)] < 0) >= 18


def test_chunks_of_one_turn_stay_in_order_when_a_session_goes_back_in_it() -> None:
    h = Harness()
    stays, session, first = pin(h.open()), h.open(), h.model
    h.swap(TUNED)
    early, tuned = h.offer(stays, 0, [1.0]), h.offer(session, 0, [2.0])
    take_over(h.engine, first)
    back = h.offer(session, 1, [3.0])
    h.settle()
    assert early.answer == sequential([1])
    assert back.answer == sequential([3], tuned.answer[0])
    assert versions_of(early, tuned, back) == ["1", "2", "1"]


def test_answers_of_two_versions_are_two_frames_though_one_frame_asked_for_them() -> None:
    h = Harness()
    caller = FrameCaller(None, h.model, [0, 1], [0, 0], [1, 1])
    y = np.zeros(1, np.float32).tobytes()
    items = [
        Item(caller, Answers([position], [0], 1, (y,), version), 1, 4)
        for position, version in enumerate(("1", "2"))
    ]
    told = [message(part).answers for part in frames(items)]
    assert [(list(one.handles), one.model, one.version) for one in told] == [
        ([0], "fake", "1"),
        ([1], "fake", "2"),
    ]
