"""Random histories against a trivial sequential model: the engine with fakes for the clock, the loop and the backend.

Whatever callers repeat, reorder, cancel or get wrong, and whatever runs fail, each session must end as if its steps
had been applied once, in order, alone; every caller that stayed is told once, and the same answer as everybody else. A history is a seed: a failing one replays exactly.
"""

import random

import numpy as np
import pytest

from service.errors import ContentDiffersError, IndexUnexpectedError, SessionClosedError
from service.session import Answer, Session
from tests.fakes import Caller, Harness, sequential

POISON = 500.0
HISTORIES = 400
EVENTS = 150


class History:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.h = Harness(batch=3, run_steps=3)
        self.h.backend.poison = {POISON}
        self.sessions: list[Session] = []
        self.accepted: list[dict[int, list[float]]] = []
        """Per session: what was last taken in at each index."""
        self.acknowledged: list[int] = []
        self.callers: list[tuple[int, int, list[float], Caller]] = []
        self.left: set[Caller] = set()
        self.open()

    def run(self) -> None:
        events = {
            self.open: 2,
            self.send_the_next_chunk: 30,
            self.send_a_chunk_that_makes_the_state_infinite: 2,
            self.repeat_a_chunk: 15,
            self.repeat_an_index_with_other_content: 4,
            self.leave_a_gap: 2,
            self.cancel: 5,
            self.fail_the_next_run: 2,
            self.close: 1,
            self.turn: 40,
        }
        for event in self.random.choices(list(events), list(events.values()), k=EVENTS):
            event()
            self.check()
        self.finish()

    # -- events ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.sessions.append(self.h.open())
        self.accepted.append({})
        self.acknowledged.append(0)

    def send_the_next_chunk(self) -> None:
        k = self.a_session()
        session = self.sessions[k]
        if session.gone is None and self.random.random() < 0.5:
            self.acknowledged[k] = session.next_index
        self.send(k, session.tail, self.some_inputs(), self.acknowledged[k])

    def send_a_chunk_that_makes_the_state_infinite(self) -> None:
        k = self.a_session()
        self.send(k, self.sessions[k].tail, [*self.some_inputs(), POISON])

    def repeat_a_chunk(self) -> None:
        if not self.callers:
            return
        k, first, values, _ = self.random.choice(self.callers[-20:])
        session = self.sessions[k]
        caller = self.send(k, first, values)
        known = self.accepted[k].get(first) == values and first < session.next_index
        if session.gone is None and known and first + len(values) > self.acknowledged[k]:
            assert isinstance(caller.outcomes[0], Answer)

    def repeat_an_index_with_other_content(self) -> None:
        k = self.a_session()
        session = self.sessions[k]
        known = [chunk.first for chunk in session.pending] + [kept.answer.first for kept in session.kept]
        if session.gone is None and known:
            first = self.random.choice(known)
            before = self.accepted[k][first]
            other = self.random.choice([[*before, 1.0], [before[0] + 1, *before[1:]]])
            assert isinstance(self.send(k, first, other).error, ContentDiffersError)

    def leave_a_gap(self) -> None:
        k = self.a_session()
        session = self.sessions[k]
        caller = self.send(k, session.tail + self.random.randint(1, 5), [1.0])
        if session.gone is None:
            assert isinstance(caller.error, IndexUnexpectedError)
            assert caller.error.expected_index == session.tail

    def cancel(self) -> None:
        waiting = [caller for *_, caller in self.callers if not caller.outcomes and caller not in self.left]
        if waiting:
            caller = self.random.choice(waiting)
            self.left.add(caller)
            self.h.engine.leave(caller.chunk, caller)

    def fail_the_next_run(self) -> None:
        self.h.backend.fail_next = True

    def close(self) -> None:
        session = self.sessions[self.a_session()]
        if session.gone is None:
            self.h.engine.end(session, SessionClosedError)

    def turn(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            self.h.turn()

    # -- parts ----------------------------------------------------------------------------------------------------

    def a_session(self) -> int:
        return self.random.randrange(len(self.sessions))

    def some_inputs(self) -> list[float]:
        return [float(self.random.randrange(100)) for _ in range(self.random.choice([1, 1, 1, 2, 3, 7]))]

    def send(self, k: int, first: int, values: list[float], acknowledged: int = 0) -> Caller:
        session = self.sessions[k]
        tail = session.tail
        caller = self.h.send(session, first, values, acknowledged)
        if first == tail and caller.chunk is not None:
            kept = {index: chunk for index, chunk in self.accepted[k].items() if index < first}
            self.accepted[k] = kept | {first: values}
        self.callers.append((k, first, values, caller))
        return caller

    # -- laws -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        rows = [session.row for session in self.sessions if session.row]
        rows += [chunk.row for session in self.sessions for chunk in session.pending if chunk.row]
        assert len(rows) == len(set(rows)) == self.h.model.rows.used
        assert all(len(caller.outcomes) <= 1 for *_, caller in self.callers)
        for session, accepted in zip(self.sessions, self.accepted, strict=True):
            if session.gone is None:
                done = committed(accepted, session.next_index)
                assert self.h.backend.rows[session.row, 0] == (sequential(done)[-1] if done else 0)

    def finish(self) -> None:
        self.h.settle()
        self.check()
        assert self.h.engine.queued == 0
        for k, first, values, caller in self.callers:
            assert len(caller.outcomes) == (caller not in self.left)
            if caller.outcomes and isinstance(caller.outcomes[0], Answer) and self.sessions[k].gone is None:
                before = committed(self.accepted[k], first)
                assert np.array_equal(caller.answer, sequential([*before, *values])[first:])


def committed(accepted: dict[int, list[float]], end: int) -> list[float]:
    """The inputs of the steps before `end`, chunk after chunk."""
    done: list[float] = []
    while len(done) < end:
        done += accepted[len(done)]
    assert len(done) == end
    return done


@pytest.mark.parametrize("block", range(10))
def test_every_history_ends_as_if_each_step_had_been_applied_once_in_order_alone(block: int) -> None:
    for seed in range(block * HISTORIES // 10, (block + 1) * HISTORIES // 10):
        try:
            History(seed).run()
        except AssertionError as error:
            error.add_note(f"replay it with History({seed}).run()")
            raise
