"""A batch that is not full may wait for more, for a stated time."""

from service.errors import DrainingError
from tests.fakes import Harness, sequential


def test_chunks_that_come_within_the_delay_share_a_run() -> None:
    h = Harness(queue_delay_s=0.01)
    first, second = h.open(), h.open()
    early = h.send(first, 0, [1])
    h.settle()
    assert early.outcomes == []
    h.advance(0.006)
    late = h.send(second, 0, [2])
    h.settle()
    h.advance(0.006)
    h.settle()
    assert (early.answer, late.answer) == ([1], [2])
    assert [len(run.read_rows) for run in h.backend.runs] == [2]


def test_a_full_batch_does_not_wait() -> None:
    h = Harness(queue_delay_s=0.01, batch=2)
    callers = [h.send(h.open(), 0, [k]) for k in range(2)]
    h.settle()
    assert [caller.answer for caller in callers] == [[0], [1]]


def test_only_the_first_run_of_a_chunk_waits() -> None:
    h = Harness(queue_delay_s=0.01, run_steps=2)
    caller = h.send(h.open(), 0, [1, 2, 3, 4, 5])
    h.advance(0.01)
    h.settle()
    assert caller.answer == sequential([1, 2, 3, 4, 5])


def test_a_drain_waits_for_nobody() -> None:
    h = Harness(queue_delay_s=10.0)
    session = h.open()
    caller = h.send(session, 0, [1])
    drained: list[bool] = []
    h.engine.drain(lambda: drained.append(True))
    h.settle()
    assert caller.answer == [1]
    assert drained == [True]
    assert isinstance(h.send(session, 1, [2]).error, DrainingError)
