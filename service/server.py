"""The life of the service: load, warm up, serve, drain, stop."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import structlog

from service.api import Api
from service.dispatcher import Dispatcher
from service.engine import Engine
from service.errors import SessionExpiredError
from service.grpc_port import PortError, open_grpc
from service.http import HttpPort
from service.metrics import Metrics
from service.readiness import Readiness
from service.repository import ServedModel, find_models, load_model
from service.scheduler import Scheduler
from service.sessions import SessionTable
from service.settings import Settings

SWITCH_INTERVAL_S = 0.0005
"""A busy thread beside the event loop moves the p99 of a run from 0.3 to 10 ms at Python's default of 5 ms."""
EXPIRY_INTERVAL_S = 1.0
EXPIRED_AT_ONCE = 256
"""Sessions ended before the loop turns to others."""
STOP_GRACE_S = 1.0

Signals = asyncio.Queue[signal.Signals]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Server:
    """A service that takes steps until it is stopped."""

    settings: Settings
    engine: Engine
    metrics: Metrics
    grpc_port: int
    http_port: int
    _grpc: grpc.aio.Server
    _http: HttpPort
    _dispatcher: Dispatcher
    _readiness: Readiness
    _expiry: asyncio.Task[None]

    async def stop(self) -> bool:
        """Report not serving, refuse new work, finish what is queued, close the ports.

        Returns:
            Whether everything queued was finished in time.
        """
        await self._readiness.report("draining")
        drained = asyncio.Event()
        self.engine.drain(drained.set)
        try:
            await asyncio.wait_for(drained.wait(), self.settings.drain_s)
        except TimeoutError:
            _log.warning("drain_timeout", queued=self.engine.queued)
        await self._grpc.stop(STOP_GRACE_S)
        self._expiry.cancel()
        await asyncio.gather(self._expiry, return_exceptions=True)
        ended = await asyncio.to_thread(self._dispatcher.stop, STOP_GRACE_S)
        self._http.stop()
        _log.info("stopped", drained=drained.is_set(), sessions=len(self.engine.table))
        return drained.is_set() and ended

    async def run_until(self, signals: Signals) -> bool:
        """Serve until a signal, then drain and stop. A second signal forces.

        Returns:
            Whether everything queued was finished.
        """
        _log.info("draining", signal=(await signals.get()).name)
        stopping = asyncio.create_task(self.stop())
        forced = asyncio.create_task(signals.get())
        await asyncio.wait((stopping, forced), return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            forced.cancel()
            return stopping.result()
        _log.warning("forced_stop", queued=self.engine.queued)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        return False


async def start_server(settings: Settings) -> Server:
    """Load and warm up every model, open the ports and report serving.

    Raises:
        CarouselError: one line that says what stands in the way.
        OSError: a TLS file cannot be read.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    dispatcher = Dispatcher(asyncio.get_running_loop())
    try:
        models = await dispatcher.call(lambda: _load_models(settings))
        return await _open(settings, models, dispatcher)
    except BaseException:
        dispatcher.stop(STOP_GRACE_S)
        raise


async def serve(settings: Settings) -> bool:
    """Run the service until SIGTERM or SIGINT; False if work was cut off.

    Raises:
        CarouselError, OSError: as `start_server`.
    """
    signals: Signals = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    starting = asyncio.create_task(start_server(settings))
    stopped = asyncio.create_task(signals.get())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        _log.info("stopped_while_starting", signal=stopped.result().name)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return True
    stopped.cancel()
    return await starting.result().run_until(signals)


def _load_models(settings: Settings) -> dict[str, ServedModel]:
    # Every row in flight belongs to a queued chunk, every other to a session.
    rows = 1 + settings.max_sessions + settings.max_queued_chunks
    models = {}
    for name, path in find_models(settings.models).items():
        model = load_model(name, path, settings.provider, settings.threads, rows)
        model.backend.warm_up(settings.max_batch)
        models[model.key] = model
    return models


async def _open(settings: Settings, models: Mapping[str, ServedModel], dispatcher: Dispatcher) -> Server:
    loop = asyncio.get_running_loop()
    metrics, readiness = Metrics(), Readiness()
    engine = Engine(
        models,
        SessionTable(settings.max_sessions),
        Scheduler(settings.max_batch, _run_steps(settings, models)),
        dispatcher,
        metrics,
        loop.time,
        loop.call_soon,
        settings.max_queued_chunks,
    )
    _watch(metrics, engine, readiness)
    http = _open_http(settings, metrics, readiness)
    try:
        api = Api(engine, metrics, settings.session_ttl_s, settings.max_message_bytes)
        grpc_server, grpc_port = await open_grpc(settings, api, readiness, metrics)
    except BaseException:
        http.stop()
        raise
    await readiness.report(None)
    _log.info("serving", grpc_port=grpc_port, http_port=http.port, models=sorted(models))
    expiry = asyncio.create_task(_expire(engine))
    return Server(
        settings, engine, metrics, grpc_port, http.port, grpc_server, http, dispatcher, readiness, expiry
    )


def _run_steps(settings: Settings, models: Mapping[str, ServedModel]) -> dict[str, int]:
    """No run is longer than its graph was verified for."""
    return {key: min(settings.run_steps, model.contract.max_steps) for key, model in models.items()}


def _open_http(settings: Settings, metrics: Metrics, readiness: Readiness) -> HttpPort:
    try:
        return HttpPort(settings.host, settings.http_port, metrics.registry, lambda: readiness.why_not)
    except OSError as error:
        raise PortError(f"cannot listen on {settings.host}:{settings.http_port}: {error.strerror}") from error


def _watch(metrics: Metrics, engine: Engine, readiness: Readiness) -> None:
    models = engine.models.values()
    metrics.watch("carousel_sessions", "Open sessions.", lambda: len(engine.table))
    metrics.watch("carousel_sessions_limit", "Sessions that the server takes.", lambda: engine.table.limit)
    metrics.watch("carousel_queued_chunks", "Chunks waiting or running.", lambda: engine.queued)
    metrics.watch("carousel_rows", "State rows in use.", lambda: sum(model.rows.used for model in models))
    metrics.watch(
        "carousel_state_bytes",
        "Bytes of the state rows in use.",
        lambda: sum(model.rows.used * model.row_bytes for model in models),
    )
    metrics.watch("carousel_ready", "1 while the service takes steps.", lambda: readiness.why_not is None)


async def _expire(engine: Engine) -> None:
    while True:
        await asyncio.sleep(EXPIRY_INTERVAL_S)
        while overdue := engine.table.overdue(engine.clock(), EXPIRED_AT_ONCE):
            for session in overdue:
                engine.end(session, SessionExpiredError)
            await asyncio.sleep(0)
