"""The connection to a server: how fast it is made again, what it trusts, and who it says is calling."""

from functools import partial
from pathlib import Path
from typing import Any

import grpc

from carousel.client.errors import UnauthenticatedError
from carousel.wire.carousel_pb2_grpc import CarouselStub

_OPTIONS: list[tuple[str, int]] = [
    # Channels of one process would share a connection otherwise, and one that is stuck would hold up all.
    ("grpc.use_local_subchannel_pool", 1),
    # The server bounds what it sends, and its bound is known only once it was asked.
    ("grpc.max_receive_message_length", -1),
    # A connection that died without a word is noticed within 25 s, well inside a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # the one that counts; a minute by default
    # grpc's own delays between connections, 1 s to 2 min, would outlast a restart. Ours come on top, with jitter.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # In spite of its name, the time that one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5_000),
]

Metadata = tuple[tuple[str, str], ...]


def open_channel(
    target: str, tls_root: Path | None, tls_cert: Path | None = None, tls_key: Path | None = None
) -> grpc.aio.Channel:
    """A channel to `target`, connected when it is first used.

    Args:
        target: Address of the server, `host:port`.
        tls_root: File of certificates (PEM) to trust; None: a connection without TLS.
        tls_cert: The caller's own certificate (PEM), where the server asks for one;
        tls_key: and its private key.

    Raises:
        UnauthenticatedError: a certificate cannot be shown without its key and without TLS.
        OSError: a file cannot be read.
    """
    if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and tls_root is None):
        raise UnauthenticatedError("tls_cert and tls_key: expected both, and tls_root with them")
    if tls_root is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    own = [None if path is None else path.read_bytes() for path in (tls_key, tls_cert)]
    credentials = grpc.ssl_channel_credentials(tls_root.read_bytes(), *own)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


def metadata_of(token: str | None) -> Metadata:
    """What each call says of its caller.

    Raises:
        UnauthenticatedError: it cannot be a token. The message does not tell it.
    """
    if token is None:
        return ()
    if not token or not all("!" <= character <= "~" for character in token):
        raise UnauthenticatedError("token: expected printable ASCII characters without spaces, came others")
    return (("authorization", f"Bearer {token}"),)


def stub_of(channel: grpc.aio.Channel, metadata: Metadata) -> Any:
    """The generated stub; each of its calls carries the metadata."""
    stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
    for name, method in list(vars(stub).items()):
        setattr(stub, name, partial(method, metadata=metadata))
    return stub
