"""The gRPC port: our service, health and reflection behind one server."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from carousel.errors import CarouselError
from carousel.wire.carousel_pb2_grpc import add_CarouselServicer_to_server
from service.access import Access
from service.api import Api
from service.identity import ANONYMOUS
from service.interceptors import CallInterceptor
from service.metrics import Metrics
from service.readiness import SERVICE, Readiness
from service.settings import Settings

_log = structlog.get_logger(__name__)


class PortError(CarouselError):
    """A port cannot be opened; says which and why."""


async def open_grpc(
    settings: Settings, api: Api, readiness: Readiness, metrics: Metrics, access: Access
) -> tuple[grpc.aio.Server, int]:
    """Start listening.

    Returns:
        The running server and its port.

    Raises:
        PortError: the port is taken, or the TLS files cannot be used.
    """
    server = grpc.aio.server(interceptors=[CallInterceptor(metrics, access)], options=_options(settings))
    add_CarouselServicer_to_server(api, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    metrics.identities_stale.set_function(lambda: access.stale)
    port = _bind(server, settings)
    _say_who_may_call(settings)
    await server.start()
    return server, port


def _say_who_may_call(settings: Settings) -> None:
    """One line at the start where anybody may do everything, or where tokens can be read on their way."""
    try:
        near = settings.host == "localhost" or ip_address(settings.host).is_loopback
    except ValueError:  # another name
        near = False
    say = _log.info if near else _log.warning
    if settings.identities is None:
        say("everybody_is_admin", owner=ANONYMOUS.owner, host=settings.host, cure="set identities")
    elif settings.tls_cert is None and not near:
        say("tokens_in_the_clear", host=settings.host, cure="set tls_cert and tls_key, or have a proxy do it")


def _options(settings: Settings) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        (
            "grpc.max_send_message_length",
            -1,
        ),  # windows and frames bound answers; what was applied must go out
        ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share its callers
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # the one that counts; a minute by default
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    credentials = _credentials(settings)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        what = "is the port taken" if credentials is None else "is the port taken, or the TLS pair unusable"
        raise PortError(f"cannot listen on {address}: {what}?") from error


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    key, chain = _pem(settings.tls_key, "KEY"), _pem(settings.tls_cert, "CERTIFICATE")
    if settings.tls_client_ca is None:
        return grpc.ssl_server_credentials([(key, chain)])
    authorities = _pem(settings.tls_client_ca, "CERTIFICATE")
    return grpc.ssl_server_credentials([(key, chain)], authorities, require_client_auth=True)


def _pem(path: Path, kind: str) -> bytes:
    content = path.read_bytes()
    if f"{kind}-----".encode() not in content:
        raise PortError(f"{path}: expected PEM with -----BEGIN ... {kind}-----")
    return content
