"""An engine over fakes with a twin beside each session, and the laws that both are held against.

Every caller that stays is told once, what its twin says, and never before it is true; whatever else happens, rows,
windows and queues add up.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np

from service import beginning
from service.api import Api
from service.errors import (
    BackendFailedError,
    IndexUnexpectedError,
    QueueFullError,
    ServiceError,
    SessionGoneError,
    StateNotFiniteError,
)
from service.kept import WINDOW_CHUNKS
from service.rows import INITIAL_ROW
from tests import fakes
from tests.fakes import Answer, FakeBackend, Frame, Harness, SessionView
from tests.simulation.twin import POISON, REPLAYED, STEP_BYTES, WAITS, Ask, Chunk, Room, Shared, Twin

OWNER = "anonymous"
TTL_S = 1000.0
KEY = b"the key of every server " * 2
MOST_VERSIONS = 4
MOST_TURNS = 3000
"""Nothing that is offered in a history takes more."""


class World:
    """What happened so far; `check` says whether it may have happened.

    Args:
        seed: Of everything that is random.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = asyncio.new_event_loop()
        """For calls that wait: it turns when the history says so."""
        self.twins: list[Twin] = []
        self.asks: list[Ask] = []
        self.lineage = 0
        self.planes = seed % 2 == 0 and fakes.FakeBackend.has_planes
        """Whether sessions begin with a number that they read ever after."""
        self._kept_bytes = self.random.choice([1 << 20, 1 << 20, 200])
        self._offered: list[Ask] = []
        """Read, and not yet admitted."""
        self._owed: dict[Ask, int] = {}
        """Whom the engine must tell before the event ends that its chunk was dropped, and the index then expected."""
        self._admitting = False
        self._failing = False
        """A run has failed in this event."""
        self.write_failed = False
        """States could not be written in this event."""
        self.disk_is_full = False
        self.start()

    def start(self) -> None:
        """Start an engine that knows nothing, with settings of its own."""
        choose = self.random.choice
        self._room = Room(choose([100, 100, 12, 4]), self._kept_bytes, draining=False)
        self.h = h = Harness(
            queue_chunks=self._room.chunks,
            kept_bytes=self._room.kept_bytes,
            batch=choose([3, 8]),
            run_steps=3,
            inline_s=choose([0.0, 1.0]),
            run_s=choose([float("inf"), 1.0]),
            resident=choose([None, 2, 2, 5]),
            lineage=f"lineage {self.lineage}",
            planes=self.planes,
        )
        self._disk_was_full = False
        h.now = choose([0.0, 1e6])  # the clocks of two processes have nothing in common
        h.backend.poison = {POISON}
        self.api = Api(h.engine, h.metrics, TTL_S, 1 << 20, KEY)
        self._admit, self._end = h.engine.admit_offered, h.engine.end
        self._listen(h.backend)
        h.engine.admit_offered = self._compare  # type: ignore[method-assign]
        h.engine.end = self._note_end  # type: ignore[method-assign]

    def _listen(self, backend: FakeBackend) -> None:
        """Learn of what fails in a backend."""
        for name, note in (
            ("run", self._note_failure),
            ("spill", self._note_full_disk),
            ("write", self._note_failed_write),
        ):
            setattr(backend, name, partial(note, getattr(type(backend), name).__get__(backend), backend))

    def swap(self) -> None:
        """Another version takes over. What was sent before is for the version before."""
        if self.draining or len(self.h.engine.served) > MOST_VERSIONS:
            return
        factor = self.random.choice([3, 7, 31])
        self._listen(self.h.swap(factor).backend)
        for twin in self.alive:
            if not twin.pinned:
                twin.factor = factor

    def drain(self, done: Callable[[], None]) -> None:
        self._room = self._room._replace(draining=True)
        self.h.engine.drain(done)

    def hang_up(self) -> None:
        """The engine ends: a run may still be under way, and nobody is told any more."""
        self.h.engine.stop()
        while self.h.jobs:
            self.h.finish_run()
        self._offered.clear()
        for ask in self.asks:
            ask.frame.left = ask.frame.left or not ask.outcomes

    # -- what happens ---------------------------------------------------------------------------------------------

    def offer(self, *chunks: tuple[Twin, int | None, list[float], int]) -> None:
        """Read a frame. A stream cannot name sessions that were gone before their engine began."""
        table = self.h.table
        asks = [Ask(*chunk, self._told) for chunk in chunks if chunk[0].view.engine is self.h.engine]
        if asks:
            slot = asks[0].twin.view.slot
            asks = [one for one in asks if table.model[one.twin.view.slot] == table.model[slot]]
            firsts = [ask.first for ask in asks]
            self.h.engine.offer(
                self.h.engine.served[int(table.model[slot])],
                Frame(list(asks)),
                [ask.twin.view.slot for ask in asks],
                [ask.twin.view.serial for ask in asks],
                None if None in firsts else firsts,
                [len(ask.values) for ask in asks],
                [ask.acknowledged for ask in asks],
                [b"".join(np.array(ask.values, np.float32).tobytes() for ask in asks)],
            )
            for ask in asks:
                ask.model = int(table.model[slot])
            self.asks += asks
            self._offered += asks

    def leave(self, frame: Frame) -> None:
        """Take a frame back: what nobody waits for is dropped, unless it runs."""
        frame.left = True
        for twin in self.alive:
            started = {int(cohort.firsts[member]) for cohort, member in twin.view.pending if cohort.started}
            for chunk in twin.queued:
                if not chunk.awaited and chunk.first not in started:
                    self._drop(twin, chunk.first)
                    break
        self.h.engine.leave(frame)

    def settle(self) -> None:
        for _ in range(MOST_TURNS):
            if not self.h.turn():
                return
        raise AssertionError("it never ends")

    def view(self, session_id: str) -> SessionView:
        return SessionView(self.h.engine, self.h.table.find(OWNER, session_id, self.h.now))

    @property
    def draining(self) -> bool:
        return self._room.draining

    @property
    def alive(self) -> list[Twin]:
        return [twin for twin in self.twins if twin.gone is None]

    def collect(self) -> None:
        """Look at the calls that have ended."""
        raise NotImplementedError

    def is_being_restored(self, twin: Twin) -> bool:
        """Whether a call is under way that may end this life."""
        raise NotImplementedError

    # -- laws -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """After every event."""
        self.collect()
        assert not self._owed, "somebody was not told that its chunk was dropped"
        for twin in self.alive:
            self._check_session(twin)
        self._check_rows()
        self._check_planes()
        self._check_windows()
        self._failing = self.write_failed = False

    def check_end(self) -> None:
        """When nothing is left to do."""
        assert self.h.engine.queue.chunks == self.h.engine.queue.promised_bytes == 0
        assert all(len(ask.outcomes) == 1 or ask.frame.left for ask in self.asks)
        assert all(twin.steps == twin.tail for twin in self.alive)

    def check_tombstones(self) -> None:
        for twin in self.twins:
            if twin.gone is not None:
                error = caught(lambda twin=twin: self.view(twin.id))
                assert type(error) is twin.gone
                assert not isinstance(error, SessionGoneError) or f"after {twin.steps} steps" in str(error)

    def _check_session(self, twin: Twin) -> None:
        view = twin.view
        assert view.alive
        if view.next_index != twin.steps:
            self._commit(twin)
        if view.tail != twin.tail:  # nobody was told, so nobody may have been waiting
            chunk = twin.at(view.tail)
            assert not chunk.awaited
            assert chunk.poisoned or self._failing
            assert not any(dropped.awaited for dropped in twin.drop_from(view.tail))
        assert {chunk.first for chunk in twin.unacknowledged} <= {one.first for one in view.kept}
        assert len(twin.queued) == len(view.pending)

    def _check_rows(self) -> None:
        alive = [twin.view.row for twin in self.alive]
        cohorts = {cohort: None for cohort in self.h.engine.queue if cohort.started}
        cohorts |= {cohort: None for batch in self.h.engine.runs._under_way for cohort in batch.cohorts}
        rows = [row for row in alive if row > 0] + [row for one in cohorts for row in one.rows.tolist()]
        rows += [row for job, _ in self.h.jobs for row in _to_be_written(job)]
        places = [row for row in alive if row < 0]
        assert len(set(rows)) == len(rows) == self.h.model.rows.used
        assert len(set(places)) == len(places)
        assert self.h.spill is None or self.h.jobs or len(places) == self.h.spill.places.used

    def _check_planes(self) -> None:
        """Each session reads its own, copies share one, and none is in use but those of sessions that live."""
        memory, table = self.h.model.memory, self.h.table
        if memory is None:
            return
        rows = dict[Shared, int]()
        for twin in self.alive:
            row = int(table.memory[twin.view.slot])
            assert rows.setdefault(twin.plane, row) == row, "a copy reads another plane than its session"
            assert memory.read(np.array([row]))[0].tolist() == [[twin.plane.number]]
        used = set(rows.values())
        assert len(used) == len(rows), "two that are no copies read the same plane"
        assert memory.used == len(used | {row for job, _ in self.h.jobs for row in _plane_to_be_written(job)})

    def _check_windows(self) -> None:
        """Each window counts what is kept and what is queued, forgotten or not, and all of them add up."""
        queue, kept, table = self.h.engine.queue, self.h.engine.kept, self.h.table
        slots = np.array([twin.view.slot for twin in self.alive], np.int64)
        dump = kept.dump(0, slots)
        chunks = np.bincount(dump.member, minlength=len(slots))
        steps = np.bincount(dump.member, dump.lengths, len(slots))
        for k, twin in enumerate(self.alive):
            lengths = [len(chunk.values) for chunk in twin.queued if chunk.numbered]
            assert table.window_chunks[slots[k]] == chunks[k] + len(lengths) <= WINDOW_CHUNKS
            assert table.window_bytes[slots[k]] == STEP_BYTES * (steps[k] + sum(lengths))
        assert kept.total_bytes == STEP_BYTES * steps.sum()
        assert queue.chunks == sum(not one.is_dropped(member) for one in queue for member in range(len(one)))

    # -- what the engine says -------------------------------------------------------------------------------------

    def _note_failure(self, run: Callable[..., Any], backend: FakeBackend, batch: Any) -> Any:
        backend.seconds = self.random.choice([0.0, 0.0, 3.0])
        try:
            return run(batch)
        except RuntimeError:
            self._failing = True
            raise

    def _note_full_disk(self, spill: Callable[..., Any], backend: FakeBackend, *rows: Any) -> None:
        backend.fail_next |= self.disk_is_full
        try:
            spill(*rows)
        except RuntimeError:
            self._disk_was_full = True
            raise

    def _note_failed_write(self, write: Callable[..., Any], _: FakeBackend, *rows: Any) -> None:
        try:
            write(*rows)
        except RuntimeError:
            self.write_failed = True
            raise

    def _note_end(self, slot: int, reason: type[SessionGoneError]) -> Any:
        """Histories know whom they end; but for that, a restore ends the life before."""
        for twin in self.alive:
            if (twin.view.slot, twin.view.serial) == (slot, self.h.table.serial[slot]):
                assert self.is_being_restored(twin)
                twin.gone = reason
        return self._end(slot, reason)

    def _compare(self) -> None:
        """Let the engine admit what was offered, and hold each decision against the twin's."""
        engine, asks, self._offered = self.h.engine, self._offered, []
        kept_bytes = engine.kept.total_bytes + engine.queue.promised_bytes
        room = self._room.less(engine.queue.chunks, kept_bytes)
        models = list(engine._groups)  # what is for one of them is admitted together
        asks.sort(key=lambda ask: models.index(ask.model))
        self._admitting = True
        self._admit()
        self._admitting = False
        for ask in asks:
            if ask.frame.left:
                assert not ask.outcomes
                continue
            twin, kind = ask.twin, ask.kind
            expected = twin.expect(ask, room)
            assert kind in expected, f"{kind} where {expected} was expected"
            if kind == WAITS:
                tail = twin.tail
                chunk = twin.take(ask)
                room = room.less(twin.tail > tail, (twin.tail - tail) * STEP_BYTES * chunk.numbered)
            elif kind == REPLAYED:
                _check_answer(ask, twin.at(ask.first))
            elif isinstance(ask.outcomes[0], IndexUnexpectedError):
                assert ask.outcomes[0].expected_index == twin.tail
            twin.heard_of(ask, self.h.now)

    def _told(self, ask: Ask, outcome: Answer | ServiceError) -> None:
        twin, chunk = ask.twin, ask.chunk
        if self._admitting:
            return  # `_compare` looks at it when all of the group are decided
        assert chunk is not None
        if isinstance(outcome, Answer):
            self._check_committed(twin, chunk)
            _check_answer(ask, chunk)
        elif twin.gone is not None:
            assert type(outcome) in twin.endings or (
                isinstance(outcome, BackendFailedError) and self._failing
            )
        else:
            self._check_failed(twin, chunk, outcome)
            # Who leaves takes its chunks back one by one, the last first: what others are told may be on the way there.
            assert self._owed.pop(ask) <= getattr(outcome, "expected_index", chunk.first) <= chunk.first

    def _check_committed(self, twin: Twin, chunk: Chunk) -> None:
        """An answer is given when index, row and kept answer are there, and not before."""
        assert twin.gone is None
        assert twin.view.next_index == chunk.end
        assert not chunk.numbered or chunk.first in [one.first for one in twin.view.kept]
        self._commit(twin)

    def _check_failed(self, twin: Twin, chunk: Chunk, error: ServiceError) -> None:
        """A chunk that was taken in fails for a reason, or because the one before it did."""
        first = chunk.first
        if isinstance(error, IndexUnexpectedError):
            first = error.expected_index
            culprit = next((one for one in twin.chunks if one.first == first), None)
            assert culprit is None or (not culprit.awaited and (culprit.poisoned or self._failing))
        elif isinstance(error, BackendFailedError):
            assert self._failing
        elif isinstance(error, QueueFullError):
            assert twin.view.row <= INITIAL_ROW
            assert self._disk_was_full
        else:
            assert isinstance(error, StateNotFiniteError)
            assert chunk.poisoned
        if any(one.first == first for one in twin.chunks):
            self._drop(twin, first)

    def _commit(self, twin: Twin) -> None:
        twin.commit(twin.view.next_index, self.h.now)
        (state,) = self.h.backend.read(np.array([twin.view.row]))
        assert state == twin.state

    def _drop(self, twin: Twin, first: int) -> None:
        """Whoever waits for a dropped chunk must be told so before the event ends."""
        for chunk in twin.drop_from(first):
            self._owed |= {ask: first for ask in chunk.waiters if not ask.frame.left}


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


async def at_once(job: Callable[[], Any]) -> Any:
    """Run a job where rows may be touched: here and now."""
    return job()


def _to_be_written(job: Any) -> list[int]:
    """Rows that new sessions will own once they are written."""
    is_writing = isinstance(job, partial) and job.func is beginning.write
    return job.args[1].tolist() if is_writing else []


def _plane_to_be_written(job: Any) -> list[int]:
    """The plane of new sessions; copies share that of one that may have ended meanwhile."""
    is_writing = isinstance(job, partial) and job.func is beginning.write
    return [job.args[2]] if is_writing else []


def _check_answer(ask: Ask, chunk: Chunk) -> None:
    (outcome,) = ask.outcomes
    assert isinstance(outcome, Answer)
    assert (outcome.first, outcome.length) == (chunk.first, len(chunk.values))
    assert ask.answer == chunk.outputs


def caught(call: Callable[[], object]) -> ServiceError | None:
    """What a call is refused with."""
    try:
        call()
    except ServiceError as error:
        return error
    return None
