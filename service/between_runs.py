"""Waiting for what touches rows between two runs. What was started is applied, whether or not somebody still waits."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import structlog

from service.dispatcher import outcome, settle
from service.engine import Engine
from service.errand import Job
from service.errors import BackendFailedError, QueueFullError, ServiceError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


def _nothing() -> None:
    pass


async def between_runs(
    engine: Engine, start: Callable[[], Job], apply: Callable[[Any], T], undo: Callable[[], None] = _nothing
) -> T:
    """Have rows touched, and apply what came of it.

    Args:
        engine: Whose rows they are.
        start: On the event loop: looks rows up, which nobody changes until `apply`, and returns the job. May raise.
        apply: On the event loop, before the next run is chosen: gets what the job returned. May raise.
        undo: Called if one of the three has failed.

    Raises:
        ServiceError: as the three do.
        BackendFailedError: rows could not be read or written.
        QueueFullError: too many others wait for the same.
    """
    if engine.waiting_errands >= engine.limits.queue_chunks:
        raise QueueFullError(f"{engine.waiting_errands} calls wait for state rows; try again")
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def done(result: Any) -> None:
        if not isinstance(result, Exception):
            result = outcome(partial(apply, result))
        if isinstance(result, Exception):
            undo()
            result = _told(result)
        settle(future, result)

    engine.errand(start, done)
    return await future


def _told(error: Exception) -> ServiceError:
    """What the caller is told of it."""
    if isinstance(error, ServiceError):
        return error
    _log.error("errand_failed", exc_info=error)
    return BackendFailedError("state rows could not be read or written; nothing was changed")
