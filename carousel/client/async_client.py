"""The asynchronous client: live sequences on a Carousel server, each step applied exactly once."""

from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Self

from carousel.client.async_session import AsyncSession
from carousel.client.calls import Calls
from carousel.client.catalog import Catalog
from carousel.client.channel import metadata_of, open_channel, stub_of
from carousel.client.description import Description
from carousel.client.errors import ModelDiffersError
from carousel.client.link import Link
from carousel.client.served import Arrays, FailedModel, Loaded, ServedModel
from carousel.client.tensors import from_arrays, to_arrays
from carousel.wire.carousel_pb2 import InferRequest, ListSessionsRequest, Model, OpenRequest, Reason

TARGET = "127.0.0.1:8001"
TIMEOUT_S = 60.0
"""Enough for a planned restart of the server."""
PAGE_SESSIONS = 1000


class AsyncClient:
    """A connection to a server, for any number of sessions. Make it inside a running event loop.

    A lost connection is made anew, and what was not answered is sent again; nobody sees it but in time.

        async with AsyncClient("127.0.0.1:8001") as client:
            session = await client.open("characters")
            outputs = await session.step(tokens)

    Leaving the context ends the connection, not the sessions: `attach` finds them again.

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
        metadata = metadata_of(token)
        self._channel = open_channel(target, tls_root, tls_cert, tls_key)
        stub = stub_of(self._channel, metadata)
        self._calls = Calls(stub, target, timeout_s)
        self._link = Link(stub.Stream)
        self._catalog = Catalog(self._calls)

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
        return await self._catalog.ask()

    async def failed_models(self) -> list[FailedModel]:
        """The versions that the server could not load, and why.

        Raises:
            ServerUnreachableError: no answer in time.
        """
        models = (await self._calls.list_models()).models
        return [FailedModel(one.name, one.version, one.error) for one in models if one.state == Model.FAILED]

    async def load_model(self, name: str, version: str = "") -> Loaded:
        """For administrators: serve a version from the repository of the server.

        Where it has the signature of the version before, live sessions go on with it; otherwise they keep theirs.

        Args:
            name: Name of the model.
            version: Empty: the newest in the repository.

        Raises:
            NotAllowedError: the caller is no administrator.
            ModelNotFoundError: the repository has no such version.
            ModelFailedError: it cannot be loaded; everything is as it was.
        """
        response = await self._calls.load_model(name, version)
        return Loaded(ServedModel.from_wire(response.model), response.took_over)

    async def unload_model(self, name: str, version: str) -> int:
        """For administrators: take no new sessions of a version. It goes when its last session has.

        Returns:
            The number of sessions that it still has.

        Raises:
            NotAllowedError: the caller is no administrator.
            ModelNotFoundError: it is not served.
        """
        return (await self._calls.unload_model(name, version)).sessions

    async def open(
        self,
        model: str,
        *,
        version: str = "",
        session: str = "",
        time_to_live_s: float = 0,
        snapshot: bytes = b"",
        priming: Arrays | None = None,
    ) -> AsyncSession:
        """Start a session.

        Args:
            model: Name of the model.
            version: The session stays with this version; empty: the newest, and each that takes over from it.
            session: The wanted id; empty: the server makes an unguessable one.
            time_to_live_s: Seconds without a step after which the session expires; 0: the server's default.
            snapshot: Where to start, from `AsyncSession.snapshot`; empty: at the model's beginning.
            priming: Inputs of the graph that makes the first state, `[B, ...]` with a B of 1, for models that have one.

        Raises:
            ModelNotFoundError: no such model or version.
            SessionExistsError: the id belongs to a live session.
            SnapshotRefusedError: damaged, or another owner's.
            ModelDiffersError: the snapshot belongs to another model, or the model is not primed.
            ServerBusyError: the server takes no more sessions.
            ServerUnreachableError: no answer in time.
        """
        request = OpenRequest(
            model=model, version=version, session=session, time_to_live_s=time_to_live_s, snapshot=snapshot
        )
        if priming is not None:
            contract = (await self._catalog.find(model, version)).priming
            if contract is None:
                raise ModelDiffersError(f"model {model!r} is not primed", Reason.MODEL_DIFFERS)
            request.priming.extend(to_arrays(contract, priming))
        opened = await self._calls.open(request)
        served = await self._catalog.served(opened.model, opened.version)
        return self._session(opened.session, served, bool(version), opened.next_index)

    async def attach(self, session: str) -> AsyncSession:
        """Go on with a session that lives on the server, at the step it expects.

        One session object at a time may step a session: a second one finds its indices taken.

        Raises:
            SessionGoneError: it never existed, expired, or was closed, evicted or lost.
            ServerUnreachableError: no answer in time.
        """
        found = await self._calls.describe(session)
        served = await self._catalog.served(found.model, found.version)
        return self._session(session, served, found.pinned, found.next_index)

    async def list_sessions(
        self, *, model: str = "", prefix: str = "", all_owners: bool = False
    ) -> AsyncGenerator[Description, None]:
        """The caller's sessions in the order of their opening, asked for a page at a time.

        Args:
            model: Only sessions of this model; empty: of all.
            prefix: Only sessions whose ids begin like this.
            all_owners: For administrators: those of everybody.

        Yields:
            Where each session stands.

        Raises:
            NotAllowedError: all owners' are for administrators.
        """
        request = ListSessionsRequest(
            page_size=PAGE_SESSIONS, model=model, prefix=prefix, all_owners=all_owners
        )
        while True:
            page = await self._calls.list_sessions(request)
            for told in page.sessions:
                yield await self._catalog.description(told)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def infer(self, model: str, inputs: Arrays, *, version: str = "") -> Arrays:
        """Run a whole-input model (bidirectional, tree) once. It has no sessions.

        Args:
            model: Name of the model.
            inputs: Arrays by input name, with the contract's dtypes and axes.
            version: Empty: the newest.

        Returns:
            Arrays by output name; the caller's own.

        Raises:
            InvalidInputError: the inputs do not fit the contract.
            ModelNotFoundError: no such model or version.
            ModelDiffersError: the model has sessions; open one.
        """
        contract = (await self._catalog.find(model, version)).contract
        request = InferRequest(model=model, version=version, inputs=to_arrays(contract, inputs))
        response = await self._calls.infer(request)
        served = await self._catalog.served(response.model, response.version)
        return from_arrays(served.contract.outputs, response.outputs)

    def _session(self, session: str, served: ServedModel, pinned: bool, next_index: int) -> AsyncSession:
        return AsyncSession(session, served, pinned, next_index, self._link, self._calls, self._catalog)
