"""A server with identities, and callers with tokens and certificates of their own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import trustme

from carousel.wire.carousel_pb2_grpc import CarouselStub
from service import housekeeping
from service.server import Server, start_server
from service.settings import Settings
from service.tokens import hash_of

ALICE, BOB, ROOT = "token-of-alice", "token-of-bob", "token-of-root"
TOKENS = {"alice": ALICE, "bob": BOB, "root": ROOT}

UNKNOWN = grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"
ABSENT = grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"
FORBIDDEN = grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"
QUOTA = grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"


def identities(**more: str) -> str:
    """The file, with further lines for some owners."""
    tables = {name: [f'tokens = ["{hash_of(token)}"]'] for name, token in TOKENS.items()}
    tables["root"].append("admin = true")
    return "\n".join(
        f"[{name}]\n" + "\n".join([*lines, more.get(name, "")]) + "\n" for name, lines in tables.items()
    )


class House(NamedTuple):
    """A server with identities."""

    server: Server
    file: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    @asynccontextmanager
    async def channel(self, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Any]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            async with grpc.aio.insecure_channel(self.address, options) as channel:
                yield channel
        else:
            async with grpc.aio.secure_channel(self.address, credentials, options) as channel:
                yield channel

    @asynccontextmanager
    async def stub(
        self, token: str | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> AsyncIterator[Any]:
        async with self.channel(credentials) as channel:
            yield Signed(CarouselStub(channel), () if token is None else bearer(token))


class Signed:
    """A stub whose calls carry some metadata."""

    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub, self._metadata = stub, metadata

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self._stub, method)
        return lambda *args, **fields: call(*args, metadata=self._metadata, timeout=20, **fields)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def serving(repository: Path, file: Path, content: str | None, **settings: Any) -> AsyncIterator[House]:
    """The whole service on free ports; it looks at the file twenty times a second. None: there is no file."""
    if content is not None:
        file.write_text(content)
    given = {"models": repository, "grpc_port": 0, "http_port": 0, "identities": file, **settings}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(housekeeping, "IDENTITIES_INTERVAL_S", 0.05)
        server = await start_server(Settings.load(given))
        try:
            yield House(server, file)
        finally:
            await server.stop()


@asynccontextmanager
async def refused(code: grpc.StatusCode, reason: str) -> AsyncIterator[list[str]]:
    """What is inside ends with this status and this typed reason; yields where its message will be."""
    message: list[str] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield message
    assert caught.value.code() == code
    assert dict(caught.value.trailing_metadata() or ())["carousel-reason"] == reason
    message.append(caught.value.details() or "")


class Authority:
    """Makes certificates for a test."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.folder = trustme.CA(), folder
        self.root = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.root)

    def files(self, name: str, *names: str, common: str | None = None) -> tuple[Path, Path]:
        made = self.ca.issue_cert(*names, common_name=common)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(cert)
        made.private_key_pem.write_to_path(key)
        return cert, key

    def credentials(self, *names: str, common: str | None = None) -> grpc.ChannelCredentials:
        cert, key = (path.read_bytes() for path in self.files("client", *names, common=common))
        return grpc.ssl_channel_credentials(self.root.read_bytes(), key, cert)


@asynccontextmanager
async def certified(repository: Path, folder: Path) -> AsyncIterator[tuple[House, Authority]]:
    """A server that asks for certificates: alice may also show one, carol only that."""
    authority = Authority(folder)
    cert, key = authority.files("server", "localhost", "127.0.0.1")
    content = identities(alice='certificates = ["alice.example", "Alice"]')
    content += '[carol]\ncertificates = ["carol.example"]\n'
    tls = {"tls_cert": cert, "tls_key": key, "tls_client_ca": authority.root}
    async with serving(repository, folder / "i.toml", content, **tls) as house:
        yield house, authority
