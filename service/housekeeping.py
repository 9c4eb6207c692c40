"""What goes on beside the steps: expiry, the watch over runs, and gauges that are read when they are scraped."""

import asyncio

import structlog

from service.engine import Engine
from service.errors import SessionExpiredError
from service.metrics import Metrics
from service.readiness import HANGS, Readiness

EXPIRY_INTERVAL_S = 1.0
EXPIRED_AT_ONCE = 256
"""Sessions ended before the loop turns to others."""
QUIET_S = 1.0
FORGOTTEN_AT_ONCE = 4096
"""Sessions whose answers are looked at before the loop turns to others."""
WATCH_INTERVAL_S = 0.5

_log = structlog.get_logger(__name__)


async def watch_runs(engine: Engine, readiness: Readiness, hung_run_s: float) -> None:
    """Report a runtime that hangs, and that it does no more; whoever restarts unhealthy services does the rest."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL_S)
        hangs = engine.running_s() >= hung_run_s
        if hangs and readiness.why_not is None:
            _log.error("run_hangs", seconds=round(engine.running_s(), 1), queued=engine.queue.chunks)
            await readiness.report(HANGS)
        elif not hangs and readiness.why_not == HANGS:
            _log.warning("run_goes_on")
            await readiness.report(None)


async def forget_answers(engine: Engine) -> None:
    """Forget what was acknowledged by sessions that are quiet; busy ones make room for themselves."""
    until = engine.clock()
    while True:
        await asyncio.sleep(QUIET_S)
        since, until = until, engine.clock() - QUIET_S
        slots = engine.table.gone_quiet(since, until)
        for start in range(0, len(slots), FORGOTTEN_AT_ONCE):
            some = slots[start : start + FORGOTTEN_AT_ONCE]
            # Asked anew each time: a slot may have gone to a session of another model meanwhile.
            models = engine.table.model[some]
            for model in engine.served:
                engine.rules.forget(model.number, some[models == model.number])
            await asyncio.sleep(0)


async def expire(engine: Engine) -> None:
    """End sessions whose time-to-live has passed, a few at a time."""
    while True:
        await asyncio.sleep(EXPIRY_INTERVAL_S)
        for _ in range(engine.table.sweeps):
            overdue = engine.table.overdue(engine.clock())
            for start in range(0, len(overdue), EXPIRED_AT_ONCE):
                some = overdue[start : start + EXPIRED_AT_ONCE]
                # Others had their turn meanwhile: a session may have stepped again, or its slot be another's.
                for slot in some[engine.table.is_overdue(some, engine.clock())].tolist():
                    engine.end(slot, SessionExpiredError)
                await asyncio.sleep(0)
            await asyncio.sleep(0)


def add_gauges(metrics: Metrics, engine: Engine, readiness: Readiness) -> None:
    """Add everything whose value stands somewhere already."""
    models = engine.models.values()
    metrics.watch("carousel_sessions", "Open sessions.", lambda: len(engine.table))
    metrics.watch("carousel_sessions_limit", "Sessions that the server takes.", lambda: engine.table.limit)
    metrics.watch("carousel_queued_chunks", "Chunks waiting or running.", lambda: engine.queue.chunks)
    metrics.watch("carousel_rows", "State rows in use.", lambda: sum(model.rows.used for model in models))
    metrics.watch(
        "carousel_state_bytes",
        "Bytes of the state rows in use.",
        lambda: sum(model.rows.used * model.row_bytes for model in models),
    )
    metrics.watch(
        "carousel_kept_bytes", "Bytes of answers kept until acknowledged.", lambda: engine.kept.total_bytes
    )
    metrics.watch("carousel_kept_bytes_limit", "Most bytes of kept answers.", lambda: engine.kept.limit_bytes)
    metrics.watch(
        "carousel_sessions_spilled",
        "Open sessions whose state is in a file.",
        lambda: sum(model.spill.places.used for model in models if model.spill is not None),
    )
    metrics.watch(
        "carousel_run_age_seconds", "Time since the present run began, 0 without one.", engine.running_s
    )
    metrics.watch("carousel_ready", "1 while the service takes steps.", lambda: readiness.why_not is None)
