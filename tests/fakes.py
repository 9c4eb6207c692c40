"""Small fakes: a model that can be checked by hand, a dispatcher and a loop that the test drives."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract, Plane, Port, Segment, Signature, layout_hash
from service.backend import Result, Run
from service.cohort import Answers, Cohort
from service.engine import Engine
from service.errors import ServiceError, SessionClosedError
from service.kept import KeptChunk
from service.limits import Limits
from service.memory import Memory
from service.metrics import Metrics
from service.repository import ServedModel
from service.rows import RowAllocator
from service.spill import SpillFile
from service.swap import take_over
from tests.planes import FakePriming, with_plane

T = TypeVar("T")

MODULUS = 65521
"""The fake model: s <- (31 s + x) mod 65521, exact in float32 and different for every order of steps."""
FACTOR = 31
"""Other versions have another one."""


def contract(lineage: str = "fake") -> Contract:
    inputs = (Port(name="x", dtype="float32"),)
    outputs = (Port(name="y", dtype="float32"),)
    planes = (Plane(input="state", output="state_out", dtype="float32", size=1),)
    segments = (Segment(name="layer0.hidden", start=0, size=1),)
    signature = Signature(layout=layout_hash("fake", inputs, outputs, planes, segments), lineage=lineage)
    return Contract(
        task="fake",
        recurrence="fake",
        inputs=inputs,
        outputs=outputs,
        lengths="lengths",
        planes=planes,
        segments=segments,
        invariant=True,
        signature=signature,
    )


def sequential(
    inputs: list[float], state: float = 0.0, factor: int = FACTOR, plane: float = 0.0
) -> list[float]:
    """What an undisturbed sequence answers; `plane` is what its session reads, see `tests.planes`."""
    answers = []
    for x in inputs:
        state = (factor * state + x + plane) % MODULUS
        answers.append(state)
    return answers


class FakeBackend:
    """Runs the fake model, and everything that the engine promises about runs is asserted."""

    has_planes = True
    """Whether sessions can have a read-only plane."""

    def __init__(self, rows: int, places: int) -> None:
        self.memory: Memory | None = None
        self.rows = np.zeros((rows, 1), np.float32)
        self.spilled = np.full((places, 1), np.nan, np.float32)
        self.runs: list[Run] = []
        self.fail_next = False
        self.poison: set[float] = set()
        """Inputs that make the state infinite."""
        self.seconds = 0.0
        """That a run says it took."""
        self.factor = FACTOR
        self.closed = False

    def tuned(self, factor: int) -> "FakeBackend":
        """Another version over the same rows."""
        twin = copy(self)
        twin.factor = factor
        return twin

    def run(self, run: Run) -> Result:
        assert 1 <= len(run.read_rows) == len(run.write_rows) == len(run.lengths)
        assert (run.lengths >= 1).all()
        assert len(set(run.write_rows.tolist())) == len(run.write_rows)
        assert (run.write_rows >= 1).all()
        assert not self.closed
        self.runs.append(run)
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("the backend failed on purpose")
        (x,) = run.inputs
        y = np.full(x.shape, np.nan, np.float32)
        states, planes = self.read(run.read_rows)[:, 0], np.zeros(len(run.lengths))
        assert (run.memory_rows is None) == (self.memory is None)
        if self.memory is not None:
            planes = self.memory.read(run.memory_rows)[0][:, 0]
        for row, length in enumerate(run.lengths):
            for t in range(length):
                poisoned = x[row, t] in self.poison or np.isinf(states[row])
                states[row] = np.inf if poisoned else self._next(states[row], x[row, t] + planes[row])
                y[row, t] = states[row]
        finite = np.isfinite(states)
        self.rows[run.write_rows[finite], 0] = states[finite]
        return Result((y,), finite, self.seconds)

    def _next(self, state: float, x: float) -> float:
        return (self.factor * state + x) % MODULUS

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.array([self.rows[row] if row >= 0 else self.spilled[-1 - row] for row in rows])

    def write(self, rows: NDArray[np.int64], states: NDArray[np.float32]) -> None:
        assert (rows >= 1).all()
        assert states.shape == (len(rows), 1)
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("writing failed on purpose")
        self.rows[rows] = states

    def spill(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        assert (rows >= 1).all()
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("the disk is full, on purpose")
        self.spilled[places] = self.rows[rows]

    def warm_up(self, batch_chunks: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Harness:
    """An engine over fakes. Nothing happens until `turn` or `settle` is called."""

    def __init__(
        self,
        *,
        sessions: int = 100,
        queue_chunks: int = 100,
        batch: int = 8,
        run_steps: int = 4,
        kept_bytes: int = 1 << 20,
        inline_s: float = 0.0,
        queue_delay_s: float = 0.0,
        run_s: float = float("inf"),
        resident: int | None = None,
        lineage: str = "fake",
        planes: bool = False,
    ) -> None:
        """Make an engine; with `resident`, idle rows beyond so many go to a file; with `planes`, see `tests.planes`."""
        self.now = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        rows = 1 + (sessions if resident is None else resident) + 2 * queue_chunks + batch
        self.backend = FakeBackend(rows, sessions)
        self.spill = None if resident is None else SpillFile(Path("never made"), sessions, resident)
        made, parts = contract(lineage), tuple[Any, ...]()
        if planes:
            made = with_plane(made)
            self.backend.memory = Memory(made.planes[1:], sessions)
            parts = (self.backend.memory, FakePriming(made))
        self.model = ServedModel("fake", "1", made, self.backend, RowAllocator(rows), 0, self.spill, *parts)
        self.metrics = Metrics()
        self.engine = Engine(
            [self.model],
            Limits(
                sessions,
                queue_chunks,
                batch,
                run_steps,
                kept_bytes,
                inline_s,
                queue_delay_s,
                run_s,
                run_s / 2,
            ),
            lambda job, done: self.jobs.append((job, done)),
            self.metrics,
            lambda: self.now,
            self.soon.append,
            lambda delay, callback: self.timers.append((self.now + delay, callback)),
        )
        self.table = self.engine.table

    def open(self, session_id: str = "", ttl_s: float = 1000.0) -> "SessionView":
        slot = self.table.open("anonymous", session_id, self.model.number, ttl_s, self.now)
        return SessionView(self.engine, slot)

    def swap(self, factor: int) -> ServedModel:
        """A version with another factor takes over: sessions that are not pinned, and new ones."""
        number = len(self.engine.served)
        self.backend = self.backend.tuned(factor)
        self.model = replace(self.model, version=str(number + 1), backend=self.backend, number=number)
        self.engine.add(self.model)
        take_over(self.engine, self.model)
        return self.model

    def offer(
        self, session: "SessionView", first: int | None, inputs: list[float], acknowledged: int = 0
    ) -> "Caller":
        """Read a frame of one chunk; it is admitted at the end of the turn."""
        return self.offer_frame([(session, first, inputs, acknowledged)])[0]

    def offer_frame(self, chunks: "list[tuple[SessionView, int | None, list[float], int]]") -> "list[Caller]":
        """Read one frame; whoever waits for its chunks leaves alone."""
        frame = Frame([Caller(session) for session, *_ in chunks])
        firsts = [first for _, first, _, _ in chunks]
        self.engine.offer(
            self.engine.served[int(self.table.model[chunks[0][0].slot])],
            frame,
            [session.slot for session, *_ in chunks],
            [session.serial for session, *_ in chunks],
            None if None in firsts else firsts,
            [len(inputs) for _, _, inputs, _ in chunks],
            [acknowledged for *_, acknowledged in chunks],
            [b"".join(np.array(inputs, np.float32).tobytes() for _, _, inputs, _ in chunks)],
        )
        return frame.callers

    def send(
        self, session: "SessionView", first: int | None, inputs: list[float], acknowledged: int = 0
    ) -> "Caller":
        """Read a frame of one chunk and admit it at once."""
        caller = self.offer(session, first, inputs, acknowledged)
        self.engine.admit_offered()
        return caller

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        due = [callback for when, callback in self.timers if when <= self.now]
        self.timers = [(when, callback) for when, callback in self.timers if when > self.now]
        for callback in due:
            callback()

    def turn(self) -> bool:
        """One callback of the loop, or else one job of the dispatcher; False if there is neither."""
        if self.soon:
            self.soon.popleft()()
        elif self.jobs:
            self.finish_run()
        else:
            return False
        return True

    def finish_run(self) -> None:
        job, done = self.jobs.popleft()
        try:
            result = job()
        except RuntimeError as error:
            result = error
        done(result)

    def start_run(self) -> None:
        """Let the loop turn until a run is with the dispatcher."""
        while self.soon:
            self.soon.popleft()()

    def settle(self) -> None:
        while self.turn():
            pass

    async def made(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a call gives that waits for rows."""
        task = asyncio.ensure_future(coroutine)
        while not task.done():
            await asyncio.sleep(0)
            self.settle()
        return await task

    def states(self, slots: NDArray[np.int64]) -> list[float]:
        """The states of some sessions."""
        return self.backend.read(self.table.row[slots])[:, 0].tolist()

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


class SessionView:
    """A session as the tests speak of it; what is kept and queued stands in the engine's columns."""

    def __init__(self, engine: Engine, slot: int) -> None:
        self.engine, self.slot = engine, slot
        self.id = engine.table.id_of(slot)
        self.serial = int(engine.table.serial[slot])

    @property
    def alive(self) -> bool:
        return int(self.engine.table.serial[self.slot]) == self.serial

    @property
    def next_index(self) -> int:
        return int(self.engine.table.next_index[self.slot])

    @property
    def tail(self) -> int:
        return int(self.engine.table.tail[self.slot])

    @property
    def row(self) -> int:
        return int(self.engine.table.row[self.slot])

    @property
    def pending(self) -> list[tuple[Cohort, int]]:
        return self.engine.queue.chain(self.slot)

    @property
    def kept(self) -> list[KeptChunk]:
        return self.engine.kept.of(self.slot, int(self.engine.table.acknowledged[self.slot]))

    @property
    def kept_bytes(self) -> int:
        return 4 * sum(chunk.length for chunk in self.kept)

    def end(self, reason: type[ServiceError]) -> None:
        self.engine.end(self.slot, reason)


class Frame:
    """Passes the outcomes of a frame on to whoever waits for each of its chunks."""

    def __init__(self, callers: "list[Caller]") -> None:
        self.callers = callers
        self.left = False
        self.waits: list[Cohort] = []
        for caller in callers:
            caller.frame = self

    def answered(self, answers: Answers) -> None:
        for k, position in enumerate(answers.positions):
            size = len(answers.outputs[0]) // len(answers.positions)
            blob = answers.outputs[0][k * size : (k + 1) * size]
            self.callers[position].tell(Answer(answers.firsts[k], answers.length, blob, answers.version))

    def refused(self, position: int, error: ServiceError) -> None:
        self.callers[position].tell(error)

    def gone(self, position: int) -> ServiceError:
        session = self.callers[position].session
        try:
            session.engine.table.find("anonymous", session.id, session.engine.clock())
        except ServiceError as error:
            return error
        assert not session.alive
        return SessionClosedError("a new one has its id")


class Answer(NamedTuple):
    """What one committed chunk gave."""

    first: int
    length: int
    blob: bytes
    version: str


class Caller:
    """Waits for a chunk; must be told exactly once."""

    frame: Frame

    def __init__(self, session: SessionView) -> None:
        self.session = session
        self.outcomes: list[Answer | ServiceError] = []

    def tell(self, outcome: Answer | ServiceError) -> None:
        self.outcomes.append(outcome)

    def leave(self) -> None:
        """Take the whole frame back."""
        self.session.engine.leave(self.frame)

    @property
    def answer(self) -> list[float]:
        (outcome,) = self.outcomes
        assert isinstance(outcome, Answer), outcome
        return np.frombuffer(outcome.blob, np.float32).tolist()

    @property
    def error(self) -> ServiceError:
        (outcome,) = self.outcomes
        assert isinstance(outcome, ServiceError), outcome
        return outcome
