"""Admission, batches, commits: the way of a chunk from the wire to its answer.

Everything here runs on the event-loop thread; only `Backend.run` runs elsewhere, through the dispatcher. Invariants:
one chunk in flight per session; row, index and kept answer change in `_commit` alone, without an await, before
anybody is answered; a failed run changes nothing; a caller that left never breaks its batch-mates.
"""

from collections.abc import Callable, Mapping

import structlog

from service.backend import Result
from service.batch import Batch, Slice
from service.dispatcher import Dispatch
from service.errors import (
    BackendFailedError,
    DrainingError,
    IndexUnexpectedError,
    InvalidInputError,
    QueueFullError,
    ServiceError,
    SessionGoneError,
    StateNotFiniteError,
)
from service.metrics import Metrics
from service.repository import ServedModel
from service.rows import INITIAL_ROW
from service.scheduler import Scheduler
from service.session import Answer, Chunk, Session, Steps, Waiter
from service.sessions import SessionTable

CHUNK_WAITERS = 64
"""Callers that may wait for one chunk. Repeating a chunk costs its client nothing, so it must be bounded here."""

_log = structlog.get_logger(__name__)


class Engine:
    """Owns the session table, the scheduler and the ownership of rows."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        table: SessionTable,
        scheduler: Scheduler,
        dispatch: Dispatch,
        metrics: Metrics,
        clock: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        queue_chunks: int,
    ) -> None:
        self.models = models
        self.table = table
        self.clock = clock
        self.queued = 0
        """Chunks between admission and commit."""
        self._scheduler = scheduler
        self._dispatch = dispatch
        self._metrics = metrics
        self._of_model = {key: metrics.of_model(key) for key in models}
        self._soon = soon
        self._queue_chunks = queue_chunks
        self._running = False
        self._pumping = False
        self._draining = False
        self._idle: list[Callable[[], None]] = []

    # -- admission ------------------------------------------------------------------------------------------------

    def submit(self, session: Session, steps: Steps, waiter: Waiter) -> Chunk | None:
        """Take a chunk in.

        Args:
            session: A session that was alive when the caller looked it up.
            steps: Inputs already checked against the contract.
            waiter: Called once with the answer or the error, possibly before this returns.

        Returns:
            What the caller waits for and may `leave`; None if it has been answered from what was kept.

        Raises:
            ServiceError: the chunk was refused. Only what it acknowledged stays true, and that its session is used.
        """
        if session.gone is not None:
            raise session.gone.again()
        session.acknowledge(steps.acknowledged)
        session.last_used = now = self.clock()
        found = session.place(steps)
        if isinstance(found, Answer):
            self._metrics.replays.inc()
            waiter(found)
            return None
        if found is not None:
            if len(found.waiters) >= CHUNK_WAITERS:
                raise QueueFullError(
                    f"{CHUNK_WAITERS} callers wait for this chunk already; wait for one of them"
                )
            self._metrics.joins.inc()
            found.waiters.append(waiter)
            return found
        self._check_room(session, steps)
        chunk = Chunk(session, steps, session.tail, now, [waiter])
        session.pending.append(chunk)
        self.queued += 1
        if len(session.pending) == 1:
            self._scheduler.add(chunk)
            self._pump_soon()
        return chunk

    def leave(self, chunk: Chunk, waiter: Waiter) -> None:
        """A caller no longer waits. A queued chunk that nobody waits for is dropped with all later ones."""
        if waiter in chunk.waiters:
            chunk.waiters.remove(waiter)
        if chunk.waiters or chunk.started or chunk.dropped:
            return
        expected = chunk.first
        dropped = self._drop(chunk)
        self._metrics.dropped.inc(len(dropped))
        for later in dropped:
            self._refuse(
                later,
                IndexUnexpectedError(
                    f"first index: expected {expected}, got {later.first} (an earlier chunk was cancelled)",
                    expected_index=expected,
                ),
            )

    def end(self, session: Session, reason: type[SessionGoneError]) -> None:
        """End a session; whoever waits for one of its chunks is told why."""
        gone = self.table.remove(session, reason, self.clock())
        self._metrics.ended.labels(
            reason.__name__.removeprefix("Session").removesuffix("Error").lower()
        ).inc()
        self.models[session.model].rows.give(
            session.row
        )  # a run that reads it ends before anybody can take it
        session.row = INITIAL_ROW
        session.forget_answers()
        queued = [chunk for chunk in session.pending if not chunk.started]
        if queued:
            self._drop(queued[0])
        for chunk in queued:
            self._refuse(chunk, gone)

    def drain(self, done: Callable[[], None]) -> None:
        """Take no new chunk; call `done` when everything queued has been answered."""
        self._draining = True
        self._idle.append(done)
        self._pump_soon()

    def check_open(self) -> None:
        """Refuse new sessions and chunks while draining.

        Raises:
            DrainingError: connect again, to the next server.
        """
        if self._draining:
            raise DrainingError("the server is going down; connect again in a moment")

    # -- runs -----------------------------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        # At the end of this turn of the loop, so that all frames read in it share a batch.
        if not self._pumping:
            self._pumping = True
            self._soon(self._pump)

    def _pump(self) -> None:
        """Start the next run if the backend is free and anything is ready."""
        self._pumping = False
        if self._running:
            return
        batch = self._scheduler.next_batch()
        if batch is not None:
            self._start(batch)
        elif not self.queued:
            waiting, self._idle = self._idle, []
            for done in waiting:
                done()

    def _start(self, batch: Batch) -> None:
        model = self.models[batch.model]
        now = self.clock()
        metrics = self._of_model[batch.model]
        for part in batch.slices:
            if not part.chunk.started:
                part.chunk.started = True
                part.chunk.row = model.rows.take()
                metrics.queue_seconds.observe(now - part.chunk.queued_at)
        metrics.batch_chunks.observe(len(batch.slices))
        metrics.padding.inc(batch.padding)
        self._running = True
        self._dispatch(lambda: model.backend.run(batch.run()), lambda result: self._finished(batch, result))

    def _finished(self, batch: Batch, result: Result | Exception) -> None:
        self._running = False
        model, metrics = self.models[batch.model], self._of_model[batch.model]
        if isinstance(result, Exception):
            metrics.failed_runs.inc()
            _log.error("run_failed", model=model.key, chunks=len(batch.slices), exc_info=result)
            failure = BackendFailedError("inference failed; nothing was applied")
            for part in batch.slices:
                self._fail(part.chunk, failure)
        else:
            metrics.run_seconds.observe(result.seconds)
            steps = [self._advance(model, part, k, result) for k, part in enumerate(batch.slices)]
            metrics.chunks.inc(len(steps) - steps.count(0))
            metrics.steps.inc(sum(steps))
        self._pump()

    def _advance(self, model: ServedModel, part: Slice, position: int, result: Result) -> int:
        """Take one slice's result; returns the number of steps that it committed."""
        chunk, session = part.chunk, part.chunk.session
        if session.gone is not None:
            self._fail(chunk, session.gone)
        elif not result.finite[position]:
            self._of_model[model.key].not_finite.inc()
            self._fail(
                chunk,
                StateNotFiniteError(
                    f"steps {chunk.first + part.start} to {chunk.first + part.start + part.steps - 1} "
                    "would make the state NaN or infinite; nothing was applied"
                ),
            )
        else:
            chunk.outputs.append(tuple(output[position, : part.steps].tobytes() for output in result.outputs))
            chunk.done += part.steps
            if chunk.done == chunk.steps.length:
                self._commit(model, chunk)
                return chunk.steps.length
            self._scheduler.add(chunk)
        return 0

    def _commit(self, model: ServedModel, chunk: Chunk) -> None:
        answer, freed = chunk.session.commit(chunk, self.clock())
        model.rows.give(freed)
        self.queued -= 1
        self._next_of(chunk.session)
        for waiter in chunk.waiters:
            waiter(answer)

    def _fail(self, chunk: Chunk, error: ServiceError) -> None:
        """A started chunk came to nothing: its row goes back, and what was queued behind it has a gap before it."""
        session, expected = chunk.session, chunk.first
        self.models[session.model].rows.give(chunk.row)
        dropped = self._drop(chunk)
        self._refuse(chunk, error)
        for later in dropped[1:]:
            self._refuse(
                later,
                IndexUnexpectedError(
                    f"first index: expected {expected}, got {later.first} (an earlier chunk failed)",
                    expected_index=expected,
                ),
            )

    # -- small parts ----------------------------------------------------------------------------------------------

    def _check_room(self, session: Session, steps: Steps) -> None:
        self.check_open()
        model = self.models[session.model]
        if steps.length > model.chunk_steps:
            raise InvalidInputError(
                f"length: expected at most {model.chunk_steps} steps a chunk, got {steps.length}"
            )
        if steps.first is not None:
            session.check_window(steps.length, model.step_bytes)
        if self.queued >= self._queue_chunks:
            raise QueueFullError(f"{self.queued} chunks are queued, as many as the server takes; try again")

    def _drop(self, chunk: Chunk) -> list[Chunk]:
        dropped = chunk.session.drop_from(chunk)
        self.queued -= len(dropped)
        return dropped

    def _next_of(self, session: Session) -> None:
        if session.pending:
            self._scheduler.add(session.pending[0])

    @staticmethod
    def _refuse(chunk: Chunk, error: ServiceError) -> None:
        for waiter in chunk.waiters:
            waiter(error.again())
