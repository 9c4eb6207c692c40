"""The asynchronous client: live sequences on a Carousel server, each step applied exactly once."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from carousel.client.async_session import AsyncSession
from carousel.client.calls import Calls
from carousel.client.errors import ModelNotFoundError
from carousel.client.link import Link
from carousel.client.served import ServedModel
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.carousel_pb2_grpc import CarouselStub

TARGET = "127.0.0.1:8001"
TIMEOUT_S = 60.0
"""Enough for a planned restart of the server."""

_OPTIONS: list[tuple[str, int]] = [
    # Channels of one process would share a connection otherwise, and one that is stuck would hold up all.
    ("grpc.use_local_subchannel_pool", 1),
    # The server bounds what it sends, and its bound is known only once it was asked.
    ("grpc.max_receive_message_length", -1),
    # A connection that died without a word is noticed within 25 s, well inside TIMEOUT_S.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # the one that counts; a minute by default
    # grpc's own delays between connections, 1 s to 2 min, would outlast a restart. Ours come on top, with jitter.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # In spite of its name, the time that one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5_000),
]


class AsyncClient:
    """A connection to a server, for any number of sessions. Make it inside a running event loop.

    A lost connection is made anew, and what was not answered is sent again; nobody sees it but in time.

        async with AsyncClient("127.0.0.1:8001") as client:
            session = await client.open("characters")
            outputs = await session.step(tokens)

    Leaving the context ends the connection, not the sessions: `attach` finds them again.

    Args:
        target: Address of the server, `host:port`.
        tls_root: File of certificates (PEM) to trust; None: a connection without TLS.
        timeout_s: How long calls and steps are tried, in seconds, unless `step` is told otherwise.
    """

    def __init__(
        self, target: str = TARGET, *, tls_root: Path | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._channel = _channel(target, tls_root)
        stub: Any = CarouselStub(self._channel)  # type: ignore[no-untyped-call]
        self._calls = Calls(stub, target, timeout_s)
        self._link = Link(stub.Stream)
        self._models: dict[tuple[str, str], ServedModel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. Steps under way fail with `ClientClosedError`; the sessions live on."""
        await self._link.close()
        await self._channel.close()

    async def models(self) -> list[ServedModel]:
        """The models being served, with their contracts and limits.

        Raises:
            ServerUnreachableError: no answer in time.
        """
        response = await self._calls.list_models()
        found = [ServedModel.from_wire(model) for model in response.models]
        self._models = {(model.name, model.version): model for model in found}
        return found

    async def open(
        self, model: str, *, version: str = "", session: str = "", time_to_live_s: float = 0
    ) -> AsyncSession:
        """Start a session.

        Args:
            model: Name of the model.
            version: Empty: the newest.
            session: The wanted id; empty: the server makes an unguessable one.
            time_to_live_s: Seconds without a step after which the session expires; 0: the server's default.

        Raises:
            ModelNotFoundError: no such model or version.
            SessionExistsError: the id belongs to a live session.
            ServerBusyError: the server takes no more sessions.
            ServerUnreachableError: no answer in time.
        """
        opened = await self._calls.open(model, version, session, time_to_live_s)
        served = await self._served(opened.model, opened.version)
        return AsyncSession(opened.session, served, 0, self._link, self._calls)

    async def attach(self, session: str) -> AsyncSession:
        """Go on with a session that lives on the server, at the step it expects.

        One session object at a time may step a session: a second one finds its indices taken.

        Raises:
            SessionGoneError: it never existed, expired, or was closed, evicted or lost.
            ServerUnreachableError: no answer in time.
        """
        found = await self._calls.describe(session)
        served = await self._served(found.model, found.version)
        return AsyncSession(session, served, found.next_index, self._link, self._calls)

    async def _served(self, name: str, version: str) -> ServedModel:
        if (name, version) not in self._models:
            await self.models()
        try:
            return self._models[name, version]
        except KeyError:
            message = f"model {name!r} version {version!r} is not being served any more"
            raise ModelNotFoundError(message, Reason.MODEL_NOT_FOUND) from None


def _channel(target: str, tls_root: Path | None) -> grpc.aio.Channel:
    if tls_root is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls_root.read_bytes())
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
