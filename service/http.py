"""The HTTP port: `/metrics`, `/healthz`, `/readyz`. A thread of its own, so that a scrape never waits for a step."""

import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from service.readiness import HANGS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

READ_TIMEOUT_S = 5.0
POLL_S = 0.1
"""How long `stop` may have to wait."""

_log = structlog.get_logger(__name__)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A connection that broke or timed out concerns nobody but its client."""
        _log.info("http_connection_failed", client=str(client_address))


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = READ_TIMEOUT_S  # a half-open connection must not hold its thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gave it
        """A probe every few seconds is not worth a log line."""


class HttpPort:
    """Serves metrics and health until it is stopped."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, ready: Callable[[], str | None]
    ) -> None:
        """Bind the port.

        Args:
            host: Address to listen on.
            port: 0 takes a free one; `port` tells which.
            registry: What `/metrics` shows.
            ready: None when the service takes steps, otherwise why it does not.
        """
        kind = _Server6 if ":" in host else _Server
        self._server = make_server(host, port, _application(registry, ready), kind, _Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), name="http", daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


def _application(registry: CollectorRegistry, ready: Callable[[], str | None]) -> "WSGIApplication":
    metrics = make_wsgi_app(registry)

    def answer(start: "StartResponse", status: HTTPStatus, text: str) -> Iterable[bytes]:
        body = f"{text}\n".encode()
        start(
            f"{status.value} {status.phrase}",
            [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
        )
        return [body]

    def application(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                page: Iterable[bytes] = metrics(environ, start)
                return page
            case "/healthz":
                if ready() == HANGS:
                    return answer(start, HTTPStatus.SERVICE_UNAVAILABLE, HANGS)
                return answer(start, HTTPStatus.OK, "alive")
            case "/readyz":
                why_not = ready()
                status = HTTPStatus.OK if why_not is None else HTTPStatus.SERVICE_UNAVAILABLE
                return answer(start, status, why_not or "ready")
        return answer(start, HTTPStatus.NOT_FOUND, "expected /metrics, /healthz or /readyz")

    return application
