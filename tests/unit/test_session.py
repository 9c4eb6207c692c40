"""Exactly once, as one session sees it."""

import pytest

from service.errors import (
    ContentDiffersError,
    IndexUnexpectedError,
    InvalidInputError,
    QueueFullError,
    WindowFullError,
)
from service.kept import WINDOW_BYTES, WINDOW_CHUNKS
from tests.fakes import Harness, sequential


def test_a_repeated_chunk_is_answered_from_what_was_kept_and_runs_once() -> None:
    h = Harness()
    session = h.open()
    first = h.send(session, 0, [5, 6])
    h.settle()
    again = h.send(session, 0, [5, 6])
    h.settle()
    assert first.answer == again.answer == sequential([5, 6])
    assert len(h.backend.runs) == 1
    assert session.next_index == 2
    assert h.metric("carousel_replays_total") == 1


def test_a_repeated_chunk_joins_the_queued_and_the_running_one() -> None:
    h = Harness()
    session = h.open()
    callers = [h.send(session, 0, [5])]
    callers.append(h.send(session, 0, [5]))
    h.start_run()
    callers.append(h.send(session, 0, [5]))
    h.settle()
    assert [caller.answer for caller in callers] == [[5], [5], [5]]
    assert len(h.backend.runs) == 1
    assert h.metric("carousel_joins_total") == 2


@pytest.mark.parametrize("where", ["queued", "running", "kept"])
def test_other_content_at_a_known_index_is_refused_and_harms_nothing(where: str) -> None:
    h = Harness()
    session = h.open()
    good = h.send(session, 0, [5])
    if where == "running":
        h.start_run()
    if where == "kept":
        h.settle()
    other, longer = h.send(session, 0, [6]), h.send(session, 0, [5, 5])
    h.settle()
    assert isinstance(other.error, ContentDiffersError)
    assert isinstance(longer.error, ContentDiffersError)
    assert str(other.error).endswith("1 steps then, 1 now, with other inputs")
    assert str(longer.error).endswith("1 steps then, 2 now")
    assert good.answer == [5]
    assert session.next_index == 1


def test_a_gap_and_a_forgotten_index_name_the_index_expected() -> None:
    h = Harness()
    session = h.open()
    h.send(session, 0, [1, 2])
    h.settle()
    gap = h.send(session, 3, [9])
    inside = h.send(session, 1, [2])
    h.send(session, 2, [3], acknowledged=2)
    h.settle()
    forgotten = h.send(session, 0, [1, 2])
    for caller, expected in ((gap, 2), (inside, 2), (forgotten, 3)):
        assert isinstance(caller.error, IndexUnexpectedError)
        assert caller.error.expected_index == expected


def test_more_unacknowledged_answers_than_the_window_are_refused_before_anything_runs() -> None:
    h = Harness()
    session = h.open()
    for index in range(WINDOW_CHUNKS):
        h.send(session, index, [index])
        if index % 2:
            h.settle()
    refused = h.send(session, WINDOW_CHUNKS, [1])
    h.settle()
    assert isinstance(refused.error, WindowFullError)
    assert session.next_index == WINDOW_CHUNKS
    assert h.send(session, WINDOW_CHUNKS, [1], acknowledged=1).outcomes == []
    h.settle()
    assert session.next_index == WINDOW_CHUNKS + 1


def test_the_window_is_also_bounded_in_bytes() -> None:
    h = Harness(run_steps=4096)
    session = h.open()
    h.table.window_bytes[session.slot] = WINDOW_BYTES - 4  # as if earlier answers filled all but one step
    assert isinstance(h.send(session, 0, [1, 2]).error, WindowFullError)
    assert h.send(session, 0, [1]).outcomes == []


def test_acknowledging_what_was_never_answered_is_refused() -> None:
    h = Harness()
    session = h.open()
    caller = h.send(session, 0, [1], acknowledged=1)
    assert isinstance(caller.error, InvalidInputError)
    assert "at most 0" in str(caller.error)


def test_steps_without_an_index_run_in_order_and_are_not_kept() -> None:
    h = Harness()
    session = h.open()
    callers = [h.send(session, None, [x]) for x in range(20)]
    h.settle()
    assert [caller.answer[0] for caller in callers] == sequential(list(range(20)))
    assert not session.kept


def test_a_chunk_longer_than_a_run_is_applied_as_a_whole_and_others_run_in_between() -> None:
    h = Harness(run_steps=4)
    long, short = h.open(), h.open()
    inputs = list(range(1, 12))
    whole = h.send(long, 0, inputs)
    h.start_run()
    single = h.send(short, 0, [7])
    h.finish_run()
    h.start_run()
    assert long.next_index == 0
    assert long.row == 0
    h.finish_run()
    assert single.outcomes
    assert not whole.outcomes
    h.settle()
    assert whole.answer == sequential(inputs)
    assert [run.lengths.max() for run in h.backend.runs] == [4, 1, 4, 3]


def test_a_chunk_of_many_runs_holds_its_own_answers_in_memory_and_not_those_of_its_batch_mates() -> None:
    h = Harness(run_steps=2)
    long, *mates = [h.open() for _ in range(4)]
    h.send(long, 0, [1, 2, 3, 4])
    for session in mates:
        h.send(session, 0, [1, 2])
    h.start_run()
    h.finish_run()
    assert len(h.backend.runs[0].lengths) == 4
    ((cohort, _),) = long.pending
    ((y,),) = cohort.parts
    assert y.base is None
    assert y.nbytes == 2 * 4


def test_the_queue_is_bounded() -> None:
    h = Harness(queue_chunks=3)
    callers = [h.send(h.open(), 0, [1]) for _ in range(4)]
    assert isinstance(callers[3].error, QueueFullError)
    h.settle()
    assert [caller.answer for caller in callers[:3]] == [[1], [1], [1]]
    assert h.engine.queue.chunks == 0
