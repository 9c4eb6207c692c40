"""What goes on beside the steps: expiry, the watch over runs, and gauges that are read when they are scraped."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import structlog

from service.access import Access
from service.engine import Engine
from service.errors import SessionExpiredError
from service.loader import Loader
from service.metrics import Metrics
from service.readiness import HANGS, Readiness
from service.repository import ServedModel
from service.settings import Settings

EXPIRY_INTERVAL_S = 1.0
EXPIRED_AT_ONCE = 256
"""Sessions ended before the loop turns to others."""
QUIET_S = 1.0
FORGOTTEN_AT_ONCE = 4096
"""Sessions whose answers are looked at before the loop turns to others."""
WATCH_INTERVAL_S = 0.5
UNLOAD_INTERVAL_S = 1.0
IDENTITIES_INTERVAL_S = 1.0
"""A file that has stayed the same for one interval is read: it takes two until a change holds."""

_log = structlog.get_logger(__name__)


def chores(
    settings: Settings, engine: Engine, readiness: Readiness, access: Access, loader: Loader
) -> list[Coroutine[Any, Any, None]]:
    """Everything that goes on for ever."""
    always = [
        expire(engine),
        forget_answers(engine),
        watch_runs(engine, readiness, settings.hung_run_s),
        watch_identities(access),
        see_models_off(loader),
    ]
    polling = settings.poll_models_s
    return always if polling is None else [*always, look_for_models(loader, polling)]


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


async def watch_identities(access: Access) -> None:
    """Let changes of the file of identities hold."""
    while True:
        await asyncio.sleep(IDENTITIES_INTERVAL_S)
        await access.look_again()


async def look_for_models(loader: Loader, interval_s: float) -> None:
    """Load the new versions that come into the repository."""
    while True:
        await asyncio.sleep(interval_s)
        await loader.look()


async def see_models_off(loader: Loader) -> None:
    """Free versions that nobody needs any more."""
    while True:
        await asyncio.sleep(UNLOAD_INTERVAL_S)
        loader.see_off()


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
            for model in np.unique(models).tolist():
                engine.rules.forget(model, some[models == model])
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
    models = engine.models
    metrics.watch("carousel_sessions", "Open sessions.", lambda: len(engine.table))
    metrics.watch("carousel_sessions_limit", "Sessions that the server takes.", lambda: engine.table.limit)
    metrics.watch("carousel_queued_chunks", "Chunks waiting or running.", lambda: engine.queue.chunks)
    metrics.watch(
        "carousel_rows", "State rows in use.", lambda: sum(model.rows.used for model in _row_owners(engine))
    )
    metrics.watch(
        "carousel_state_bytes",
        "Bytes of the state rows in use, and of what sessions only read.",
        lambda: sum(map(_state_bytes, _row_owners(engine))),
    )
    metrics.watch(
        "carousel_kept_bytes", "Bytes of answers kept until acknowledged.", lambda: engine.kept.total_bytes
    )
    metrics.watch("carousel_kept_bytes_limit", "Most bytes of kept answers.", lambda: engine.kept.limit_bytes)
    metrics.watch(
        "carousel_sessions_spilled",
        "Open sessions whose state is in a file.",
        lambda: sum(model.spill.places.used for model in _row_owners(engine) if model.spill is not None),
    )
    metrics.watch(
        "carousel_run_age_seconds", "Time since the present run began, 0 without one.", engine.running_s
    )
    metrics.watch_states(
        "carousel_models",
        "Versions of models.",
        {
            "serving": lambda: len(models.keys),
            "retiring": lambda: sum(1 for _ in models) - len(models.serving),
            "failed": lambda: len(models.failures),
        },
    )
    metrics.watch("carousel_ready", "1 while the service takes steps.", lambda: readiness.why_not is None)


def _row_owners(engine: Engine) -> list[ServedModel]:
    """One model of those over the same rows."""
    return list({id(model.rows): model for model in engine.models}.values())


def _state_bytes(model: ServedModel) -> int:
    memory = 0 if model.memory is None else model.memory.used * model.memory.row_bytes
    return model.rows.used * model.row_bytes + memory
