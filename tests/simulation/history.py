"""One random history of an engine: callers, runs, disks, restarts and crashes, all from one seed."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from carousel.wire import carousel_pb2 as pb
from service import drain_file
from service.errors import (
    DrainingError,
    SessionClosedError,
    SessionExpiredError,
    SessionLostError,
    SessionNotFoundError,
)
from tests.simulation.calls import Calls, Made
from tests.simulation.twin import POISON, Twin
from tests.simulation.world import TTL_S, at_once, caught, finished

EVENTS = 150
SHORT_TTL_S = 30.0


class History(Calls):
    """Call `run`: whatever it raises is a failure, and comes again with the same seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.folder = Path()
        self.open()
        while not self.twins:
            self.turn()
            self.collect()

    def run(self) -> None:
        try:
            self._run_events()
        finally:
            self.cancel_all()
            self.loop.close()

    def _run_events(self) -> None:
        events: dict[Callable[[], None], float] = {
            self.open: self.random.choice([3, 8]),
            self.fork: 2,
            self.look_ahead: 0.5,
            self.take_a_snapshot: 2,
            self.restore: 1.5,
            self.open_from_a_snapshot: 1,
            self.leave_a_call: 1.5,
            self.repeat_a_call: 2,
            self.swap: 0.5,
            self.touch: 1,
            self.list_sessions: 1,
            self.send_the_next_chunk: 30,
            self.send_a_frame: 15,
            self.send_nonsense: 3,
            self.send_in_the_wrong_order: 2,
            self.repeat_a_chunk: 15,
            self.repeat_an_index_with_other_content: 4,
            self.leave_a_gap: 2,
            self.cancel: 6,
            self.fail_the_next_job: 3,
            self.fill_or_empty_the_disk: 1,
            self.close: 3,
            self.let_time_pass: 3,
            self.turn: 40,
            self.restart: 1,
            self.crash: 0.1,
        }
        with TemporaryDirectory() as folder:
            self.folder = Path(folder)
            for event in self.random.choices(list(events), list(events.values()), k=EVENTS):
                event()
                self.check()
            self.finish()

    def finish(self) -> None:
        self.settle()
        self.check()
        assert not self.pending
        self.check_end()
        self.check_tombstones()
        for twin in self.twins:
            for chunk in twin.unacknowledged:
                self.send(twin, chunk.first, chunk.values, 0)
        self.settle()
        self.check()

    # -- sessions -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        ttl_s = self.random.choice([TTL_S, TTL_S, SHORT_TTL_S])
        version = self.h.model.version if self.random.random() < 0.2 else ""
        if self.planes:
            self.open_primed(ttl_s, version)
            return
        number = self.number("open")
        request = pb.OpenRequest(model="fake", version=version, request_id=number, time_to_live_s=ttl_s)
        made = self.call(self.api.Open(request, None))
        self.made.append(Made("Open", request, made))
        twin = Twin(self.view(made.session), ttl_s, self.h.now)
        self.follow(twin)
        twin.pinned = request.version
        self.twins.append(twin)

    def close(self) -> None:
        twin = self.a_twin()
        if self.random.random() < 0.5:
            # The one whose row leaves next, or is about to.
            twin = min(self.alive, key=lambda one: (len(one.queued), one.used), default=twin)
        if twin.gone is None:
            request = pb.CloseRequest(session=twin.id, request_id=self.number("close"))
            twin.gone = SessionClosedError
            done = self.call(self.api.Close(request, None))
            assert done.steps == twin.steps
            self.made.append(Made("Close", request, done))

    def let_time_pass(self) -> None:
        """Idle sessions expire, and no others."""
        self.h.now += SHORT_TTL_S * self.random.choice([0.6, 1.1])
        overdue = self.h.table.overdue(self.h.now).tolist()
        for twin in self.twins:
            if twin.gone is None:
                idle_s, is_overdue = self.h.now - twin.used, twin.view.slot in overdue
                assert not is_overdue or not twin.queued
                assert is_overdue or twin.queued or idle_s < twin.ttl_s + 1e-3
                assert not is_overdue or idle_s > twin.ttl_s - 1e-3
                if is_overdue:
                    twin.gone = SessionExpiredError
                    self.h.engine.end(twin.view.slot, SessionExpiredError)

    # -- chunks ---------------------------------------------------------------------------------------------------

    def send_the_next_chunk(self) -> None:
        twin = self.a_twin()
        if self.random.random() < 0.5:
            twin.received = twin.steps
        first = None if self.random.random() < 0.1 else twin.tail
        self.send(twin, first, self.some_inputs(), twin.received)

    def send_a_frame(self) -> None:
        """The next chunks of some sessions, perhaps two of one, admitted with other frames."""
        chunks, tails = [], dict[Twin, int]()
        numbered, alike = self.random.random() < 0.9, self.random.random() < 0.5
        length = self.a_length()
        for twin in self.random.choices(self.twins, k=self.random.randint(1, 6)):
            values = self.some_inputs(length if alike else self.a_length())
            if self.random.random() < 0.05:
                values[-1] = self.random.choice([POISON, np.nan])
            first = tails.get(twin, twin.tail)
            tails[twin] = first + len(values)
            chunks.append((twin, first if numbered else None, values, twin.received))
        self.offer(*chunks)
        self.perhaps_admit()

    def send_nonsense(self) -> None:
        """A step that makes the state infinite, one that is no number, an answer acknowledged before it is given."""
        twin = self.a_twin()
        values = [*self.some_inputs(), self.random.choice([POISON, POISON, np.nan])]
        acknowledged = self.random.choice([twin.received, twin.received, twin.tail + 1])
        self.send(twin, twin.tail, values, acknowledged)

    def send_in_the_wrong_order(self) -> None:
        twin, values = self.a_twin(), self.some_inputs()
        self.send(twin, twin.tail + len(values), self.some_inputs(), twin.received)
        self.send(twin, twin.tail, values, twin.received)

    def repeat_a_chunk(self) -> None:
        if self.asks:
            ask = self.random.choice(self.asks[-20:])
            first = ask.first
            if first is None and ask.chunk is not None and self.random.random() < 0.5:
                first = ask.chunk.first  # it was not numbered: nobody can ask for it by a number
            self.send(ask.twin, first, ask.values, 0)

    def repeat_an_index_with_other_content(self) -> None:
        known = [(twin, one) for twin in self.twins for one in (*twin.unacknowledged, *twin.queued)]
        if known:
            twin, chunk = self.random.choice(known)
            values = chunk.values
            other = [
                [*values, 1.0],
                [values[0] + 1, *values[1:]],
                [*values[:-1], values[-1] + 1],
                values[1:] or [0.5],
            ]
            self.send(twin, chunk.first, self.random.choice(other), 0)

    def leave_a_gap(self) -> None:
        twin = self.a_twin()
        self.send(twin, twin.tail + self.random.randint(1, 5), [1.0], 0)

    def cancel(self) -> None:
        frames = [ask.frame for ask in self.asks if not ask.outcomes and not ask.frame.left]
        if frames:
            self.leave(self.random.choice(frames))

    # -- the server -----------------------------------------------------------------------------------------------

    def turn(self) -> None:
        self.h.now += 0.05
        for _ in range(self.random.randint(1, 4)):
            self.h.turn()

    def fail_the_next_job(self) -> None:
        self.h.backend.fail_next = True

    def fill_or_empty_the_disk(self) -> None:
        """While it is full, idle rows stay where they are, and new sessions find no room."""
        self.disk_is_full = not self.disk_is_full and self.random.random() < 0.4
        for _ in range(self.random.randint(0, 24) if self.disk_is_full else 0):
            self.open()
            self.send(self.twins[-1], 0, self.some_inputs(), 0)
            self.turn()
            self.check()

    def restart(self) -> None:
        """Drain and save, then load into another engine; perhaps the work takes longer than the server waits."""
        if self.random.random() < 0.3:
            self.let_time_pass()
            self.check()
        self.drain_for_a_while()
        self.disk_is_full = False  # a server that cannot bring back every session does not start
        before = {twin: self._answers(twin) for twin in self.alive}
        order = sorted(self.alive, key=_opened)
        calls, moment = self.api.dump_calls(), self.h.now
        finished(drain_file.save(self.folder, self.h.engine, calls, at_once))
        if self.random.random() < 0.1:
            self.lineage += 1  # the next server has another model
            for twin in self.alive:
                twin.gone = SessionLostError
        self.start()
        assert finished(drain_file.load(self.folder, self.h.engine, at_once)) == calls
        drain_file.forget(self.folder)
        self.api.load_calls(calls)
        self.check_tombstones()
        for twin in self.alive:
            twin.comes_back(self.view(twin.id), self.h.now - moment)
            assert self._answers(twin) == before[twin]
        assert [twin for twin in order if twin.gone is None] == sorted(self.alive, key=_opened)
        self.ask_again()
        if self.random.random() < 0.3:
            self.let_time_pass()

    def drain_for_a_while(self) -> None:
        """Take nothing new and finish what is queued, or not all of it."""
        drained: list[int] = []
        self.drain(lambda: drained.append(self.h.engine.queue.chunks))
        refused = caught(lambda: self.call(self.api.Open(pb.OpenRequest(model="fake"), None)))
        assert isinstance(refused, DrainingError)
        for event in self.random.choices([self.send_a_frame, self.repeat_a_chunk, self.cancel], k=2):
            event()
            self.check()
        if self.random.random() < 0.7:
            self.settle()
            assert drained == [0]
        else:
            self.turn()
        self.check()
        self.hang_up()
        self.cut_off()

    def crash(self) -> None:
        """Nothing was written: no session may come back, least of all as it once was."""
        self.hang_up()
        self.cut_off()
        self.start()
        assert finished(drain_file.load(self.folder, self.h.engine, at_once)) is None
        for twin in self.twins:
            twin.gone = SessionNotFoundError
        self.check_tombstones()
        self.pending.clear()
        self.made.clear()

    # -- parts ----------------------------------------------------------------------------------------------------

    def a_twin(self) -> Twin:
        return self.random.choice(self.twins)

    def a_length(self) -> int:
        return self.random.choice([1, 1, 1, 2, 3, 7])

    def some_inputs(self, length: int = 0) -> list[float]:
        return [float(self.random.randrange(100)) for _ in range(length or self.a_length())]

    def send(self, twin: Twin, first: int | None, values: list[float], acknowledged: int) -> None:
        self.offer((twin, first, values, acknowledged))
        self.perhaps_admit()

    def perhaps_admit(self) -> None:
        if self.random.random() < 0.6:
            self.h.engine.admit_offered()

    def _answers(self, twin: Twin) -> list[object]:
        """What must be kept, whatever rows it is kept in."""
        kept, firsts = self.h.engine.kept, [chunk.first for chunk in twin.unacknowledged]
        return [(*one[:3], kept.outputs(0, one)) for one in twin.view.kept if one.first in firsts]


def _opened(twin: Twin) -> int:
    return twin.view.serial
