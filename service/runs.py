"""The runs that the backend has, and what becomes of each. On the event-loop thread alone.

There are up to two, in their order: while the backend is at one, answers of the one before are written and inputs of the
next are read.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from service.backend import Result
from service.batch import Batch
from service.dispatcher import Dispatch, outcome
from service.errors import BackendFailedError
from service.limits import Limits
from service.observations import Observations
from service.repository import ServedModel
from service.results import Results
from service.scheduler import Scheduler

MOST = 2

_log = structlog.get_logger(__name__)


class Runs:
    """Hands batches to the backend and takes their results.

    Args:
        results: Applies what a run gave.
        scheduler: Told of chunks that may follow those of a run.
        observations: Told what gates did.
        limits: Which runs are made here, and which are slow.
        dispatch: Has the others made elsewhere.
        ended: Called after each run.
    """

    def __init__(
        self,
        results: Results,
        scheduler: Scheduler,
        observations: Observations,
        limits: Limits,
        dispatch: Dispatch,
        ended: Callable[[], None],
    ) -> None:
        self.stopped = False
        """Whether no result is applied any more."""
        self._results = results
        self._scheduler, self._pace = scheduler, scheduler.pace
        self._observations = observations
        self._limits = limits
        self._dispatch, self._clock, self._ended = dispatch, results.clock, ended
        self._under_way: deque[Batch] = deque()
        self._since = 0.0
        """When the first of them began."""

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def seconds(self) -> float:
        """How long the backend has been at its present run; 0 without one."""
        return self._clock() - self._since if self._under_way else 0.0

    @property
    def may_start(self) -> bool:
        """Whether the backend is free, or is to have a run more.

        A second one is chosen early, so it must be worth it: with as many steps as the first there is little to be added.
        """
        if not self._under_way:
            return True
        last = self._under_way[-1]
        return len(self._under_way) < MOST and self._scheduler.steps >= last.size * last.longest

    def start(self, batch: Batch) -> bool:
        """Have a batch run; returns whether it is done already, for it was shorter than changing threads."""
        model, metrics = self._results.served[batch.model], self._results.metrics[batch.model]
        alone = not self._under_way and self._scheduler.empty
        inline = alone and self._pace.predict(batch) < self._limits.inline_s
        for cohort in batch.cohorts:
            if not cohort.started:
                cohort.started = True
                cohort.rows = model.rows.take(len(cohort))
        metrics.batch_chunks.observe(batch.size, 1)
        if len(batch.cohorts) > 1:
            metrics.padding.inc(batch.padding)
        job = partial(model.backend.run, batch.run(self._results.table, model.memory is not None))
        if not self._under_way:
            self._since = self._clock()
        self._under_way.append(batch)
        for follower in batch.end():
            self._scheduler.add(follower)
        if inline:
            self._finished(batch, outcome(job))
        else:
            self._dispatch(job, partial(self._finished, batch))
        return inline

    def _finished(self, batch: Batch, result: Result | Exception) -> None:
        self._under_way.popleft()
        began, self._since = self._since, self._clock()  # if there is another, it begins now
        if self.stopped:
            return
        model, metrics = self._results.served[batch.model], self._results.metrics[batch.model]
        for cohort in batch.cohorts:
            if not cohort.done:
                metrics.queue_seconds.observe(began - cohort.queued_at, len(cohort))
        if isinstance(result, Exception):
            metrics.failed_runs.inc()
            _log.error("run_failed", model=model.key, chunks=batch.size, exc_info=result)
            self._results.fail_all(batch, BackendFailedError("inference failed; nothing was applied"))
        else:
            self._apply(model, batch, result)
        self._ended()

    def _apply(self, model: ServedModel, batch: Batch, result: Result) -> None:
        self._pace.learn(batch, result.seconds)
        if result.observed is not None:
            self._observations.take(model, batch, result)
        self._results.metrics[batch.model].run_seconds.observe(result.seconds, 1)
        if result.seconds >= self._limits.slow_run_s:
            sizes = {"sessions": batch.size, "steps": batch.longest}
            _log.warning("slow_run", model=model.key, seconds=round(result.seconds, 3), **sizes)
        self._results.apply(batch, result)
