"""Small fakes: a model that can be checked by hand, a dispatcher and a loop that the test drives."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from carousel.contract import Contract, Plane, Port, Segment, Signature, layout_hash
from service.backend import Result, Run
from service.engine import Engine
from service.errors import ServiceError
from service.metrics import Metrics
from service.repository import ServedModel
from service.rows import RowAllocator
from service.scheduler import Scheduler
from service.session import Answer, Session, Steps
from service.sessions import SessionTable

MODULUS = 65521
"""The fake model: s <- (31 s + x) mod 65521, exact in float32 and different for every order of steps."""


def contract() -> Contract:
    inputs = (Port(name="x", dtype="float32"),)
    outputs = (Port(name="y", dtype="float32"),)
    planes = (Plane(input="state", output="state_out", dtype="float32", size=1),)
    segments = (Segment(name="layer0.hidden", start=0, size=1),)
    signature = Signature(layout=layout_hash("fake", inputs, outputs, planes, segments), lineage="fake")
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


def sequential(inputs: list[float], state: float = 0.0) -> list[float]:
    """What an undisturbed sequence answers."""
    answers = []
    for x in inputs:
        state = (31 * state + x) % MODULUS
        answers.append(state)
    return answers


class FakeBackend:
    """Runs the fake model, and everything that the engine promises about runs is asserted."""

    def __init__(self, rows: int) -> None:
        self.rows = np.zeros((rows, 1), np.float32)
        self.runs: list[Run] = []
        self.fail_next = False
        self.poison: set[float] = set()
        """Inputs that make the state infinite."""

    def run(self, run: Run) -> Result:
        assert 1 <= len(run.read_rows) == len(run.write_rows) == len(run.lengths)
        assert (run.lengths >= 1).all()
        assert len(set(run.write_rows.tolist())) == len(run.write_rows)
        assert (run.write_rows >= 1).all()
        assert (run.read_rows >= 0).all()
        self.runs.append(run)
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("the backend failed on purpose")
        (x,) = run.inputs
        y = np.full(x.shape, np.nan, np.float32)
        states = self.rows[run.read_rows, 0].copy()
        for row, length in enumerate(run.lengths):
            for t in range(length):
                poisoned = x[row, t] in self.poison or np.isinf(states[row])
                states[row] = np.inf if poisoned else (31 * states[row] + x[row, t]) % MODULUS
                y[row, t] = states[row]
        finite = np.isfinite(states)
        self.rows[run.write_rows[finite], 0] = states[finite]
        return Result((y,), finite, 0.0)

    def warm_up(self, batch_chunks: int) -> None:
        pass


class Harness:
    """An engine over fakes. Nothing happens until `turn` or `settle` is called."""

    def __init__(
        self, *, sessions: int = 100, queue_chunks: int = 100, batch: int = 8, run_steps: int = 4
    ) -> None:
        self.now = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        rows = 1 + sessions + queue_chunks
        self.backend = FakeBackend(rows)
        self.model = ServedModel("fake", "1", contract(), self.backend, RowAllocator(rows))
        self.metrics = Metrics()
        self.table = SessionTable(sessions)
        self.engine = Engine(
            {self.model.key: self.model},
            self.table,
            Scheduler(batch, {self.model.key: run_steps}),
            lambda job, done: self.jobs.append((job, done)),
            self.metrics,
            lambda: self.now,
            self.soon.append,
            queue_chunks,
        )

    def open(self, session_id: str = "", ttl_s: float = 1000.0) -> Session:
        return self.table.open("anonymous", session_id, self.model.key, ttl_s, self.now)

    def send(
        self, session: Session, first: int | None, inputs: list[float], acknowledged: int = 0
    ) -> "Caller":
        caller = Caller()
        array = np.array(inputs, np.float32)
        steps = Steps(first, len(inputs), acknowledged, hash(array.tobytes()), (array,))
        try:
            caller.chunk = self.engine.submit(session, steps, caller)
        except ServiceError as error:
            caller(error)
        return caller

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

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


class Caller:
    """Waits for a chunk; must be told exactly once."""

    def __init__(self) -> None:
        self.chunk: Any = None
        self.outcomes: list[Answer | ServiceError] = []

    def __call__(self, outcome: Answer | ServiceError) -> None:
        self.outcomes.append(outcome)

    @property
    def answer(self) -> list[float]:
        (outcome,) = self.outcomes
        assert isinstance(outcome, Answer), outcome
        return np.frombuffer(outcome.outputs[0], np.float32).tolist()

    @property
    def error(self) -> ServiceError:
        (outcome,) = self.outcomes
        assert isinstance(outcome, ServiceError), outcome
        return outcome
