"""Admission, batches, commits: the way of chunks from the wire to their answers.

Everything here runs on the event-loop thread; only `Backend.run` may run elsewhere, through the dispatcher. Invariants:
chunks of a session run and commit in their order; row, index and kept answer change in `_commit` alone, without an
await, before anybody is answered; a failed run changes nothing; a caller that left never breaks its batch-mates.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from service.admission import Admission
from service.batch import Batch
from service.cohort import Caller
from service.dispatcher import Dispatch, outcome
from service.errand import Errand, Errands, Job
from service.errors import QueueFullError, SessionGoneError
from service.group import Group
from service.kept import KeptAnswers
from service.limits import Limits
from service.metrics import Metrics, ModelMetrics
from service.models import Models
from service.observations import Observations
from service.pace import Pace
from service.queue import ChunkQueue
from service.repository import ServedModel
from service.results import Results
from service.rules import Rules
from service.runs import Runs
from service.scheduler import Scheduler
from service.sessions import HIDDEN, SessionTable
from service.spill import NO_ROOM, Spilling, too_many


class Engine:
    """Owns the session table, the queue, the kept answers, the scheduler and the ownership of rows."""

    def __init__(
        self,
        models: Iterable[ServedModel],
        limits: Limits,
        dispatch: Dispatch,
        metrics: Metrics,
        clock: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.models = Models()
        self.served = self.models.served
        """By number."""
        self.takeovers = 0
        """How often sessions have gone from one version to another."""
        self.clock, self.limits = clock, limits
        self.unread_bytes = 0
        """Inputs or answers of all streams between the reading of their frames and the writing."""
        self.table = SessionTable(limits.sessions)
        self.kept = KeptAnswers(limits.sessions, limits.kept_bytes)
        self.queue = ChunkQueue(self.table, [])
        self.rules = Rules(self.served, self.table, self.kept, self.queue, metrics, limits.queue_chunks)
        self._admission = Admission(self.table, self.queue, self.rules, limits.batch_chunks)
        self._scheduler = Scheduler(limits.batch_chunks, Pace(limits.run_s, limits.beside_s))
        self.spilling = Spilling(self.table, self.served)
        self.observations = Observations(self.table, metrics)
        self._of_model: list[ModelMetrics] = []
        self._results = Results(
            self.served, self.table, self.queue, self.kept, self._scheduler, self._of_model, clock
        )
        self._dispatch, self._soon, self._later, self._metrics = dispatch, soon, later, metrics
        self._groups: dict[int, Group] = {}
        self.runs = Runs(self._results, self._scheduler, self.observations, limits, dispatch, self._run_ended)
        self._pumping = False
        self._errand_since: float | None = None
        self._idle: list[Callable[[], None]] = []
        self._errands = Errands()
        for model in models:
            self.add(model)
            self.models.serve(model)

    def add(self, model: ServedModel) -> None:
        """Be able to step sessions of one model more."""
        self.models.add(model)
        like = next((sibling.number for sibling in self.models.siblings(model)), None)
        self.kept.add_model(model.contract, like)
        self.queue.step_bytes.append(model.step_bytes)
        # No run is longer than its graph was verified for.
        self._scheduler.pace.add_model(model.number, min(self.limits.run_steps, model.contract.max_steps))
        self._of_model.append(self._metrics.of_model(model.key))

    # -- what callers ask -----------------------------------------------------------------------------------------

    def offer(
        self,
        model: ServedModel,
        caller: Caller,
        slots: Sequence[int],
        serials: Sequence[int],
        firsts: Sequence[int] | None,
        lengths: Sequence[int],
        acknowledged: Sequence[int] | None,
        blobs: Sequence[bytes],
    ) -> None:
        """Take the chunks of one frame in at the end of this turn of the loop, with all others read in it.

        Args:
            model: Of all the sessions.
            caller: Told once of each chunk.
            slots: Of the sessions, as they were looked up,
            serials: and who they were then.
            firsts: Index of the first step of each chunk; None: the client does not number them.
            lengths: Steps of each chunk, 1 or more.
            acknowledged: The answers of all steps below it have been received.
            blobs: From `blobs_of`.
        """
        if model.number not in self._groups:
            self._groups[model.number] = Group()
        self._groups[model.number].add(caller, slots, serials, firsts, lengths, acknowledged, blobs)
        self._pump_soon()

    @property
    def offered(self) -> bool:
        """Whether chunks wait for the end of the turn."""
        return bool(self._groups)

    def admit_offered(self) -> None:
        """Decide what the chunks are that were offered in this turn."""
        groups, self._groups = self._groups, {}
        for number, group in groups.items():
            for cohort in self._admission.admit(self.served[number], group, self.clock()):
                self._scheduler.add(cohort)

    def leave(self, caller: Caller) -> None:
        """A caller waits no longer. Queued chunks that nobody waits for are dropped, with all later ones."""
        caller.left = True
        waits, caller.waits = dict.fromkeys(reversed(caller.waits)), []
        for cohort in waits:
            if not cohort.started and self.queue.cohort(cohort.number) is cohort:
                self._metrics.dropped.inc(self._results.take_back(cohort))

    def end(self, slot: int, reason: type[SessionGoneError]) -> SessionGoneError:
        """End a session; whoever waits for one of its chunks is told why."""
        table, model = self.table, int(self.table.model[slot])
        queued = [link for link in self.queue.chain(slot) if not link[0].started]
        # A run that reads the row ends before anybody can take it.
        self.served[model].leave(table.row[slot : slot + 1], int(table.memory[slot]))
        self.kept.forget_all(model, slot)
        if table.owner_of(slot) != HIDDEN:
            self._metrics.count_end(reason)
        gone = table.remove(slot, reason, self.clock())
        for cohort, member in reversed(queued):
            self.queue.abandon(cohort, member)
        for cohort, member in queued:
            cohort.refuse(member, gone)
        return gone

    def errand(self, start: Callable[[], Job], done: Callable[[Any], None]) -> None:
        """Have rows touched between two runs; see `Errand`. It is dropped if the engine is stopped before."""
        self._errands.add(Errand(start, done))
        self._pump_soon()

    @property
    def waiting_errands(self) -> int:
        """Errands whose turn has not come."""
        return len(self._errands)

    def drain(self, done: Callable[[], None]) -> None:
        """Take no new chunk; call `done` when everything queued has been answered."""
        self.rules.draining = True
        self._idle.append(done)
        self._pump_soon()

    def metrics_of(self, model: ServedModel) -> ModelMetrics:
        """The metrics of one model."""
        return self._of_model[model.number]

    def running_s(self) -> float:
        """How long the dispatcher has been at its present job; 0 when it has none."""
        return self.runs.seconds if self._errand_since is None else self.clock() - self._errand_since

    def stop(self) -> None:
        """Start no run any more, and apply no result: what is not committed now never will be."""
        self.runs.stopped = True

    # -- runs -----------------------------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._soon(self._pump)

    def _pump(self) -> None:
        """Take in what came, and start what is ready if the backend has not enough to do."""
        self._pumping = False
        self.admit_offered()
        if self.runs.stopped or self._errand_since is not None or (not self.runs and self._run_errand()):
            return
        while self.runs.may_start and not (self.runs and self._between_runs):
            if not self._idle and (wait := self._scheduler.wait(self.clock(), self.limits.queue_delay_s)):
                self._later(wait, self._pump_soon)
                return
            batch = self._scheduler.next_batch()
            if batch is None:
                self._nothing_ready()
                return
            if self._turn_away(batch):
                self._pump_soon()
                return
            if self.runs.start(batch):
                return

    @property
    def _between_runs(self) -> bool:
        """Whether something has to happen between two runs."""
        return bool(self._errands) or self.spilling.pressing

    def _run_ended(self) -> None:
        if self._groups or self._idle or self._errands or not self._scheduler.empty:
            self._pump_soon()

    def _nothing_ready(self) -> None:
        if self.runs:
            return
        if self._errands:
            self._pump_soon()  # what was ready came to nothing, and it was not their turn
        elif not self.queue.chunks:
            waiting, self._idle = self._idle, []
            for done in waiting:
                done()

    def _run_errand(self) -> bool:
        """Start the next errand: idle rows that leave come first; returns whether one is under way."""
        errand = self.spilling.next_errand(self.clock)
        errand = errand or self._errands.next(batch_waits=not self._scheduler.empty)
        if errand is None:
            return False
        job = outcome(errand.start)

        def done(result: Any) -> None:
            self._errand_since = None
            if not self.runs.stopped:
                errand.done(result)
                self._pump_soon()

        if isinstance(job, Exception):
            done(job)
        else:
            self._errand_since = self.clock()
            self._dispatch(job, done)
        return True

    def _turn_away(self, batch: Batch) -> bool:
        """Refuse chunks whose sessions would need a row more, if idle rows have to leave and cannot.

        Returns:
            Whether there are any; what is left of the batch is ready again.
        """
        new = too_many(batch, self.queue, self.table, self.served, self.limits.second_rows)
        if new and not self.spilling.look_again(self.clock()):
            for cohort, members in new:
                self._results.fail(cohort, members, QueueFullError(NO_ROOM))
        for cohort in batch.cohorts if new else ():
            self._scheduler.add(cohort)
        return bool(new)
