"""Loads versions from the repository beside the runs, and lets them take over.

In a thread of its own: ONNX Runtime gives way to others while it reads, optimises and runs a graph, so steps go on.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from carousel.contract import Contract, Signature
from carousel.errors import CarouselError
from service.denormals import Denormals
from service.dispatcher import Dispatcher
from service.engine import Engine
from service.errors import ModelFailedError, ModelNotFoundError
from service.forms import Store, captures, new_backend, new_store
from service.metrics import Metrics
from service.models import Failure
from service.once import let_go
from service.opening import open_model, open_priming
from service.repository import (
    LoadedModel,
    ModelError,
    ModelFile,
    ServedModel,
    WholeModel,
    find_models,
    find_version,
)
from service.row_store import RowStore
from service.settings import Settings
from service.spill import SpillFile
from service.swap import abandoned, sessions_of, take_over, unload
from service.whole_graph import WholeGraph

_log = structlog.get_logger(__name__)


class Loader:
    """Brings versions in and sees them off. One is loaded at a time.

    Args:
        settings: Of the server.
        engine: What runs them.
        metrics: Where failures are counted.
        thread: Loads them.
        runs: The thread that owns rows, for what must be done there before the first run.
    """

    def __init__(
        self, settings: Settings, engine: Engine, metrics: Metrics, thread: Dispatcher, runs: Dispatcher
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._thread = thread
        self._runs = runs
        self._denormals = Denormals()
        self._lock = asyncio.Lock()
        self._files: dict[int, ModelFile] = {}
        """By the number of the loaded version."""
        self._stores: dict[tuple[str, Signature, str], Store] = {}
        """Of the loaded versions, by name, signature and form."""
        self._newest: dict[str, ModelFile] = {}
        """The newest version that was ever to be loaded: polling does not come back to older ones."""
        self._seen: dict[str, ModelFile] = {}
        """What the last look found."""

    async def load_newest(self) -> None:
        """Load the newest version of every model, for the start.

        Raises:
            CarouselError: one cannot be served.
        """
        if self._settings.state_dir is not None:
            for stale in self._settings.state_dir.glob("*.spill"):  # of a server that was killed
                stale.unlink()
        for file in find_models(self._settings.models).values():
            self._newest[file.name] = file
            self._serve(await self._add(file))

    async def load(self, name: str, version: str = "") -> tuple[LoadedModel, bool]:
        """Serve a version, unless it is served already. What was begun is finished, though the caller may leave.

        Args:
            name: Of the model.
            version: Empty: the newest in the repository.

        Returns:
            The model, and whether live sessions have gone over to it.

        Raises:
            DrainingError: the server is going down.
            ModelNotFoundError: it is not in the repository.
            ModelFailedError: it cannot be served; all is as it was.
        """
        loading = asyncio.create_task(self._load(name, version))
        loading.add_done_callback(let_go)
        return await asyncio.shield(loading)

    async def bring_back(self, name: str, version: str, signature: Signature) -> ServedModel | None:
        """An older version for sessions that were left with it by a restart; None: it is not there any more."""
        async with self._lock:
            with suppress(ModelNotFoundError, ModelFailedError):
                file = find_version(self._settings.models, name, version)
                model = self._loaded(file) or await self._try(file)
                if isinstance(model, ServedModel) and model.contract.signature == signature:
                    return model
        return None

    def unload(self, name: str, version: str) -> int:
        """Take no new sessions of a version; it goes when its last session has.

        Returns:
            How many it has.

        Raises:
            ModelNotFoundError: it is neither loaded nor one that failed.
        """
        models, sessions = self._engine.models, sessions_of(self._engine)
        loaded = models.versions_of(name, version)
        whole, failed = models.drop_whole(name, version), models.forget_failure(name, version)
        if not (loaded or whole or failed):
            there = ", ".join(model.key for model in models) or "none"
            raise ModelNotFoundError(f"model {f'{name}/{version}'!r} is not loaded; loaded are: {there}")
        for model in loaded:
            models.retire(model)
            _log.info("model_retires", model=model.key, sessions=sessions[model.number])
        return sum(sessions[model.number] for model in loaded)

    async def look(self) -> None:
        """Load newer versions than ever before that have not changed since the last look: they may be half copied."""
        try:
            found = await self._thread.call(partial(find_models, self._settings.models))
        except (ModelError, OSError) as error:
            _log.warning("repository_unreadable", error=str(error))
            return
        seen, self._seen = self._seen, found
        for name, file in found.items():
            if file == seen.get(name) and _is_news(file, self._newest.get(name)):
                with suppress(CarouselError):  # told already; a look cannot do more
                    await self.load(name, file.version)

    def tell_what_serves(self) -> None:
        """Log how each model runs; for the start, once nothing stands in its way."""
        for model in self._engine.models.serving:
            self._tell(model)
        for whole in self._engine.models.whole:
            self._tell(whole)

    def see_off(self) -> None:
        """Free versions that nobody needs any more."""
        if abandoned(self._engine):
            self._engine.errand(self._unload, lambda _: None)

    # -- one version ----------------------------------------------------------------------------------------------

    async def _load(self, name: str, version: str) -> tuple[LoadedModel, bool]:
        async with self._lock:
            self._engine.rules.check_open()
            file = await self._thread.call(partial(find_version, self._settings.models, name, version))
            if _is_news(file, self._newest.get(name)):
                self._newest[name] = file
            model = self._loaded(file) or await self._try(file)
            if self._engine.models.is_serving(model):
                return model, False
            moved = self._serve(model)
            self._tell(model, sessions_taken_over=moved)
            return model, moved > 0

    def _serve(self, model: LoadedModel) -> int:
        """Give a loaded version the place of its name; returns how many live sessions go on with it."""
        if isinstance(model, ServedModel):
            return take_over(self._engine, model)
        self._engine.models.serve_whole(model)
        return 0

    def _tell(self, model: LoadedModel, **more: int) -> None:
        form, precision = model.contract.form, model.contract.precision
        if isinstance(model, ServedModel) and captures(model.backend, self._settings):
            more["recorded"] = True
        _log.info("model_serves", model=model.key, form=form, precision=precision, **more)

    def _loaded(self, file: ModelFile) -> LoadedModel | None:
        """The model of a file, if it is loaded."""
        for whole in self._engine.models.whole:
            if whole.file == file:
                return whole
        found = (model for model in self._engine.models if self._files[model.number] == file)
        return next(found, None)

    async def _try(self, file: ModelFile) -> LoadedModel:
        try:
            return await self._add(file)
        except CarouselError as error:
            _log.error("model_load_failed", model=file.name, version=file.version, error=str(error))
            self._metrics.load_failures.labels(file.name).inc()
            why = str(error).replace(f"{self._settings.models}/", "")  # where it lies is nobody's business
            self._engine.models.fail(Failure(file.name, file.version, why))
            raise ModelFailedError(why) from error

    async def _add(self, file: ModelFile) -> LoadedModel:
        number = len(self._engine.served)
        model, store = await self._thread.call(partial(self._make, file, number))
        self._metrics.load_failures.labels(file.name)  # there before it moves
        if isinstance(model, WholeModel):
            self._metrics.of_model(model.key)
            return model
        assert store is not None
        for capture in captures(model.backend, self._settings):  # one at a time: runs go on in between
            await self._runs.call(partial(_try_out, file, capture))
        self._engine.add(model)
        self._files[number] = file
        self._stores[file.name, model.contract.signature, model.contract.form] = store
        return model

    def _make(self, file: ModelFile, number: int) -> tuple[LoadedModel, Store | None]:
        """Open a model over the rows of its siblings, or over new ones, and run it; in the thread for loading."""
        settings = self._settings
        with self._denormals.as_zero():  # threads of the runtime that are started here go on like this
            session, contract = open_model(file.path, settings.provider, settings.threads, cuda=settings.cuda)
            if contract.kind == "whole":
                graph = WholeGraph(session, contract, f"{file.name}/{file.version}")
                _try_out(file, graph.warm_up)
                return WholeModel(file, graph), None
            priming = open_priming(file.path, contract, settings.provider, settings.threads, settings.cuda)
            rows_of = file.name, contract.signature, contract.form
            store = self._stores.get(rows_of) or self._new_store(file, contract, number)
            backend = new_backend(session, contract, store)
            _try_out(file, partial(backend.warm_up, settings.max_batch))
            if priming is not None:
                _try_out(file, priming.warm_up)
        owned, memory = store.owned, store.memory if isinstance(store, RowStore) else None
        model = ServedModel(
            file.name, file.version, contract, backend, owned, number, store.spill_file, memory, priming
        )
        return model, store

    def _new_store(self, file: ModelFile, contract: Contract, number: int) -> Store:
        settings = self._settings
        # Each queued chunk's session may have its row and a second one; the other rows are those of idle sessions, and
        # the second ones of a run under way whose chunks are not queued any more.
        resident = min(settings.resident_sessions or settings.max_sessions, settings.max_sessions)
        rows = 1 + resident + 2 * settings.max_queued_chunks + settings.max_batch
        spill = None
        if settings.state_dir is not None and resident < settings.max_sessions:
            path = settings.state_dir / f"{file.name}.{number}.spill"
            spill = SpillFile(path, settings.max_sessions, resident)
        try:
            return new_store(contract, rows, settings, spill)
        except (MemoryError, OSError) as error:
            sizes = [f"{rows} rows of {contract.state_size} numbers"]
            sizes += [f"{settings.max_sessions} of {p.size} that are only read" for p in contract.planes[1:]]
            raise ModelError(
                f"{file.path}: no room for {' and '.join(sizes)} (--max-sessions says how many): {error}"
            ) from error

    def _unload(self) -> Callable[[], Any]:
        """The start of an errand: nothing runs now. Returns what closes the models."""
        gone = (
            [] if self._lock.locked() else abandoned(self._engine)
        )  # what is being loaded may need their rows
        for model in gone:
            del self._files[model.number]
            if unload(self._engine, model):
                del self._stores[model.name, model.contract.signature, model.contract.form]
            _log.info("model_unloaded", model=model.key)

        def close() -> None:
            for model in gone:
                model.backend.close()

        return close


def _try_out(file: ModelFile, warm_up: Callable[[], None]) -> None:
    try:
        warm_up()
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ModelError(f"{file.path}: it cannot be run: {error}") from error


def _is_news(file: ModelFile, newest: ModelFile | None) -> bool:
    """Whether a file is of a newer version, or the newest one with other content."""
    if newest is None or int(file.version) > int(newest.version):
        return True
    return file.version == newest.version and file.stamp != newest.stamp
