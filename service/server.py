"""The life of the service: load, warm up, serve, drain, stop."""

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from service import drain_file
from service.access import Access
from service.api import Api
from service.dispatcher import Dispatcher
from service.engine import Engine
from service.grpc_port import PortError, open_grpc
from service.housekeeping import add_gauges, chores
from service.http import HttpPort
from service.limits import Limits
from service.loader import Loader
from service.metrics import Metrics
from service.readiness import Readiness
from service.settings import Settings
from service.snapshot_key import snapshot_key

SWITCH_INTERVAL_S = 0.0001
"""How long a run that ends waits for a busy event loop before it is done, and the next one before it begins."""
GC_THRESHOLDS = (20_000, 20, 50)
"""Sessions are columns and make no garbage; a full collection beside many streams would be in everybody's p99."""
STOP_GRACE_S = 1.0
INLINE_S = 0.0002
"""Changing threads twice takes about as long."""
RUN_S = 0.02
"""Of long chunks: a run costs a millisecond beside itself, and who comes meanwhile joins the next one."""
BESIDE_S = 0.002
"""The same beside sessions that send single steps and would wait for it."""

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
    _api: Api
    _http: HttpPort
    _threads: Sequence[Dispatcher]
    _readiness: Readiness
    _watching: Sequence[asyncio.Task[None]]

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
            _log.warning("drain_timeout", queued=self.engine.queue.chunks)
        await self._grpc.stop(STOP_GRACE_S)
        self.engine.stop()
        for task in self._watching:
            task.cancel()  # they end sessions, and unload models
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._save()
        ended = await asyncio.to_thread(_stop, self._threads)
        self._http.stop()
        _log.info("stopped", drained=drained.is_set(), sessions=len(self.engine.table))
        return drained.is_set() and ended

    async def _save(self) -> None:
        """Write the sessions for the next server."""
        folder = self.settings.state_dir
        if folder is None:
            if len(self.engine.table):
                _log.warning("sessions_lost", sessions=len(self.engine.table), cure="set state_dir")
            return
        calls = self._api.dump_calls()
        saving = drain_file.save(folder, self.engine, calls, self._threads[0].call)
        try:
            saved = await asyncio.wait_for(saving, self.settings.drain_s)
        except (OSError, TimeoutError) as error:
            _log.error("sessions_lost", sessions=len(self.engine.table), error=str(error) or "took too long")
        else:
            _log.info("sessions_saved", sessions=saved)
        for model in self.engine.models:
            if model.spill is not None:
                model.spill.close()

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
        _log.warning("forced_stop", queued=self.engine.queue.chunks)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        self.engine.stop()
        # Python ends threads that are inside of the runtime by aborting the whole process.
        await asyncio.to_thread(_stop, self._threads)
        return False


async def start_server(settings: Settings) -> Server:
    """Load and warm up every model, open the ports and report serving.

    Raises:
        CarouselError: one line that says what stands in the way.
        OSError: a TLS file cannot be read.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    loop = asyncio.get_running_loop()
    threads = Dispatcher(loop), Dispatcher(loop, "loader")
    try:
        return await _open(settings, *threads)
    except BaseException:
        _stop(threads)
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


async def _open(settings: Settings, dispatcher: Dispatcher, loading: Dispatcher) -> Server:
    loop = asyncio.get_running_loop()
    metrics, readiness, access = Metrics(), Readiness(), Access(settings.identities)
    engine = Engine((), _limits(settings), dispatcher, metrics, loop.time, loop.call_soon, loop.call_later)
    engine.table.quota_of = access.sessions_of
    loader = Loader(settings, engine, metrics, loading, dispatcher)
    if settings.state_dir is not None:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
    await loader.load_newest()
    add_gauges(metrics, engine, readiness)
    http = _open_http(settings, metrics, readiness)
    try:
        key = snapshot_key(settings.snapshot_key_file)
        api = Api(engine, metrics, settings.session_ttl_s, settings.max_message_bytes, key, loader=loader)
        if settings.state_dir is not None:
            await _open_again(settings.state_dir, engine, api, dispatcher, loader)
        grpc_server, grpc_port = await open_grpc(settings, api, readiness, metrics, access)
    except BaseException:
        http.stop()
        raise
    if settings.state_dir is not None:
        drain_file.forget(settings.state_dir)  # not earlier: a port that is taken must not cost the sessions
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection needs to look at it again
    await readiness.report(None)
    _tell(settings, loader, grpc_port=grpc_port, http_port=http.port, models=engine.models.keys)
    return Server(
        settings,
        engine,
        metrics,
        grpc_port,
        http.port,
        grpc_server,
        api,
        http,
        (dispatcher, loading),
        readiness,
        [asyncio.create_task(chore) for chore in chores(settings, engine, readiness, access, loader)],
    )


def _tell(settings: Settings, loader: Loader, **what: object) -> None:
    """Not before all is open: a start that fails is one line."""
    loader.tell_what_serves()
    _log.info("serving", provider=settings.provider, **what)


def _stop(threads: Sequence[Dispatcher]) -> bool:
    """End the threads; whether what they were at was finished in time."""
    ended = [thread.stop(STOP_GRACE_S) for thread in threads]
    return all(ended)


def _limits(settings: Settings) -> Limits:
    return Limits(
        sessions=settings.max_sessions,
        queue_chunks=settings.max_queued_chunks,
        batch_chunks=settings.max_batch,
        run_steps=settings.run_steps,
        kept_bytes=settings.max_kept_bytes,
        # CUDA's contexts and graphs are those of a thread: runs keep to the dispatcher's.
        inline_s=INLINE_S if settings.provider == "cpu" else 0.0,
        queue_delay_s=settings.queue_delay_s,
        run_s=RUN_S,
        beside_s=BESIDE_S,
        slow_run_s=settings.slow_run_s,
    )


async def _open_again(folder: Path, engine: Engine, api: Api, dispatcher: Dispatcher, loader: Loader) -> None:
    """Go on with the sessions of the server before."""
    calls = await drain_file.load(folder, engine, dispatcher.call, loader.bring_back)
    if calls is not None:
        api.load_calls(calls)
        _log.info("sessions_opened_again", sessions=len(engine.table))


def _open_http(settings: Settings, metrics: Metrics, readiness: Readiness) -> HttpPort:
    try:
        return HttpPort(settings.host, settings.http_port, metrics.registry, lambda: readiness.why_not)
    except OSError as error:
        raise PortError(f"cannot listen on {settings.host}:{settings.http_port}: {error.strerror}") from error
