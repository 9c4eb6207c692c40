"""The blocking client: the asynchronous one, run by a thread of its own. Safe to use from any number of threads."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from carousel.client.async_client import TARGET, TIMEOUT_S, AsyncClient
from carousel.client.async_session import AsyncSession
from carousel.client.description import Description
from carousel.client.served import Arrays, FailedModel, Inputs, Loaded, ServedModel
from carousel.contract import Contract

T = TypeVar("T")


class _Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # asyncio.run, since it also ends what grpc leaves behind in the loop.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(_until_stopped(started)), name="carousel-client", daemon=True
        )
        self._thread.start()
        self._loop, self._stop = started.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it; an interrupt of the waiting thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncGenerator[T, None]) -> Iterator[T]:
        """Take one after another from an asynchronous generator, and close it in the end."""

        async def take() -> list[T]:
            async for item in source:
                return [item]
            return []

        try:
            while taken := self.run(take()):
                yield taken[0]
        finally:
            if self._thread.is_alive():  # else the loop has closed it
                self.run(source.aclose())

    def stop(self) -> None:
        """End the loop and its thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


async def _until_stopped(started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    stop = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), stop))
    await stop.wait()


class Client:
    """`AsyncClient` for callers without an event loop.

        with Client("127.0.0.1:8001") as client:
            session = client.open("characters")
            outputs = session.step(tokens)

    Args:
        target: Address of the server, `host:port`.
        token: Says who is calling; None: nobody, or whoever the certificate names.
        tls_root: File of certificates (PEM) to trust; None: a connection without TLS, over which a token can be read.
        tls_cert: File with the caller's own certificate (PEM), where the server asks for one;
        tls_key: and with its private key.
        timeout_s: How long calls and steps are tried, in seconds, unless `step` is told otherwise.
    """

    def __init__(
        self,
        target: str = TARGET,
        *,
        token: str | None = None,
        tls_root: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(
                target,
                token=token,
                tls_root=tls_root,
                tls_cert=tls_cert,
                tls_key=tls_key,
                timeout_s=timeout_s,
            )

        self._background = _Background()
        try:
            self._client = self._background.run(make())
        except BaseException:
            self._background.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. Steps under way in other threads fail with `ClientClosedError`; the sessions live on."""
        self._background.run(self._client.close())
        self._background.stop()

    def models(self) -> list[ServedModel]:
        """See `AsyncClient.models`."""
        return self._background.run(self._client.models())

    def failed_models(self) -> list[FailedModel]:
        """See `AsyncClient.failed_models`."""
        return self._background.run(self._client.failed_models())

    def load_model(self, name: str, version: str = "") -> Loaded:
        """See `AsyncClient.load_model`."""
        return self._background.run(self._client.load_model(name, version))

    def unload_model(self, name: str, version: str) -> int:
        """See `AsyncClient.unload_model`."""
        return self._background.run(self._client.unload_model(name, version))

    def open(
        self,
        model: str,
        *,
        version: str = "",
        session: str = "",
        time_to_live_s: float = 0,
        snapshot: bytes = b"",
        priming: Arrays | None = None,
    ) -> "Session":
        """See `AsyncClient.open`."""
        work = self._client.open(
            model,
            version=version,
            session=session,
            time_to_live_s=time_to_live_s,
            snapshot=snapshot,
            priming=priming,
        )
        return Session(self._background.run(work), self._background)

    def attach(self, session: str) -> "Session":
        """See `AsyncClient.attach`."""
        return Session(self._background.run(self._client.attach(session)), self._background)

    def list_sessions(
        self, *, model: str = "", prefix: str = "", all_owners: bool = False
    ) -> Iterator[Description]:
        """See `AsyncClient.list_sessions`."""
        return self._background.iterate(
            self._client.list_sessions(model=model, prefix=prefix, all_owners=all_owners)
        )

    def infer(self, model: str, inputs: Arrays, *, version: str = "") -> Arrays:
        """See `AsyncClient.infer`."""
        return self._background.run(self._client.infer(model, inputs, version=version))


class Session:
    """`AsyncSession` for callers without an event loop. Threads that step one session take turns in any order."""

    def __init__(self, session: AsyncSession, background: _Background) -> None:
        self._session = session
        self._background = background

    @property
    def id(self) -> str:
        """Names the session on the server, for `attach`."""
        return self._session.id

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._session.model

    @property
    def version(self) -> str:
        """The version of the model that gave the last answer."""
        return self._session.version

    @property
    def contract(self) -> Contract:
        """What the model takes and gives."""
        return self._session.contract

    @property
    def chunk_steps(self) -> int:
        """T of the longest chunk that `step` takes."""
        return self._session.chunk_steps

    @property
    def next_index(self) -> int:
        """Index that the next call of `step` will take."""
        return self._session.next_index

    def step(self, inputs: Inputs, *, timeout_s: float | None = None) -> Arrays:
        """See `AsyncSession.step`: arrays `[T, *shape]` in and out."""
        return self._background.run(self._session.step(inputs, timeout_s=timeout_s))

    def generate(
        self,
        prompt: Sequence[int] | NDArray[Any],
        max_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[int] = (),
    ) -> Iterator[int]:
        """See `AsyncSession.generate`."""
        return self._background.iterate(
            self._session.generate(
                prompt,
                max_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seed=seed,
                stop=stop,
            )
        )

    def forecast(self, steps: int, scenarios: Sequence[Inputs]) -> list[Arrays]:
        """See `AsyncSession.forecast`."""
        return self._background.run(self._session.forecast(steps, scenarios))

    def fork(self, copies: int | Sequence[str] = 1) -> list["Session"]:
        """See `AsyncSession.fork`."""
        made = self._background.run(self._session.fork(copies))
        return [Session(session, self._background) for session in made]

    def snapshot(self) -> bytes:
        """See `AsyncSession.snapshot`."""
        return self._background.run(self._session.snapshot())

    def restore(self, snapshot: bytes) -> None:
        """See `AsyncSession.restore`."""
        self._background.run(self._session.restore(snapshot))

    def touch(self) -> float:
        """See `AsyncSession.touch`."""
        return self._background.run(self._session.touch())

    def describe(self) -> Description:
        """See `AsyncSession.describe`."""
        return self._background.run(self._session.describe())

    def close(self) -> int:
        """See `AsyncSession.close`."""
        return self._background.run(self._session.close())
