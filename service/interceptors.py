"""Around every call: who makes it. Around ours also: a request id on the log, a timer, and exactly one status."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError

from service.access import Access, Credentials
from service.errors import IndexUnexpectedError, InvalidInputError, ServiceError
from service.identity import ANONYMOUS, Identity, caller
from service.metrics import Metrics
from service.status import message_of, reason_name, status_of

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]

SERVICE = "/carousel.v1.Carousel/"
HEALTH = "/grpc.health.v1.Health/"
REQUEST_ID_CHARACTERS = 128

_log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """The one place where exceptions become statuses."""

    def __init__(self, metrics: Metrics, access: Access) -> None:
        self._metrics = metrics
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handlers. Health is open to all: probes have no identity."""
        handler = await continuation(handler_call_details)
        name = handler_call_details.method
        if handler is None or name.startswith(HEALTH):
            return handler
        if not name.startswith(SERVICE):
            return self._locked(handler)
        method = name.removeprefix(SERVICE)
        if handler.stream_stream:
            make, behaviour = grpc.stream_stream_rpc_method_handler, handler.stream_stream
        elif handler.unary_stream:
            make, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream
        else:
            make, behaviour = grpc.unary_unary_rpc_method_handler, handler.unary_unary
        read = _reading(handler.request_deserializer)
        known = self._known(behaviour, lasting=handler.response_streaming)
        return make(self._guard(method, known), read, handler.response_serializer)

    def _known(self, behaviour: "Behaviour", *, lasting: bool) -> "Behaviour":
        """Set `caller`; a call that may last ends when its caller is known no more."""

        async def known(request: Any, context: "Context") -> Any:
            if not self._access.configured:
                caller.set(ANONYMOUS)
                return await behaviour(_checked(request), context)
            identity, credentials = self._identify(context)
            caller.set(identity)  # each call is a task of its own
            structlog.contextvars.bind_contextvars(owner=identity.owner)
            if not lasting:
                return await behaviour(_checked(request), context)
            with self._access.while_known(credentials, identity.owner):
                return await behaviour(_checked(request), context)

        return known

    def _locked(self, handler: Any) -> Any:
        """Reflection: as it is, for callers that are known."""

        async def locked(requests: Any, context: "Context") -> AsyncIterator[Any]:
            try:
                self._identify(context)
            except ServiceError as error:
                await self._refuse(context, error, _request_id(context))
            async for answer in handler.stream_stream(requests, context):
                yield answer

        return grpc.stream_stream_rpc_method_handler(
            locked, handler.request_deserializer, handler.response_serializer
        )

    def _identify(self, context: "Context") -> tuple[Identity, Credentials]:
        return self._access.identify(context.invocation_metadata() or (), context.auth_context())

    def _guard(self, method: str, behaviour: "Behaviour") -> "Behaviour":
        async def guarded(request: Any, context: "Context") -> Any:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            request_id = _request_id(context)
            with structlog.contextvars.bound_contextvars(request_id=request_id, method=method):
                try:
                    return await behaviour(request, context)
                except ServiceError as error:
                    code, _ = status_of(error)
                    await self._refuse(context, error, request_id)
                except asyncio.CancelledError:
                    code = _why_cancelled(context)
                    raise
                except Exception:
                    code = grpc.StatusCode.INTERNAL
                    _log.exception("call_failed")
                    await context.abort(code, "internal error", (("x-request-id", request_id),))
                finally:
                    self._metrics.requests.labels(method, code.name).inc()
                    if method not in ("Stream", "Generate"):
                        self._metrics.request_seconds.labels(method).observe(time.perf_counter() - started)

        return guarded

    async def _refuse(self, context: "Context", error: ServiceError, request_id: str) -> NoReturn:
        code, reason = status_of(error)[0], reason_name(error)
        self._metrics.refused.labels(reason).inc()
        _log.info("call_refused", code=code.name, reason=reason, message=message_of(error))
        trailing = [("carousel-reason", reason), ("x-request-id", request_id)]
        if isinstance(error, IndexUnexpectedError):
            trailing.append(("carousel-expected-index", str(error.expected_index)))
        await context.abort(code, message_of(error), tuple(trailing))


def _reading(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Bytes that are no message become the error that answers them: gRPC ends calls whose parser raises with UNKNOWN."""

    def read(message: bytes) -> Any:
        try:
            return parse(message)
        except DecodeError:
            return InvalidInputError(
                f"message: expected protobuf, came {len(message)} bytes of something else"
            )

    return read


def _checked(request: Any) -> Any:
    if isinstance(request, ServiceError):
        raise request
    return request


def _request_id(context: "Context") -> str:
    given = dict(context.invocation_metadata() or ()).get("x-request-id", "")
    return str(given)[:REQUEST_ID_CHARACTERS] or secrets.token_hex(8)


def _why_cancelled(context: "Context") -> grpc.StatusCode:
    left_s: float | None = context.time_remaining()
    return (
        grpc.StatusCode.DEADLINE_EXCEEDED if left_s is not None and left_s <= 0 else grpc.StatusCode.CANCELLED
    )
