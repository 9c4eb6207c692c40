"""The unary calls of the client, repeated while the server cannot be reached."""

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from carousel.client.backoff import Backoff
from carousel.client.errors import ClientClosedError, Refusal, ServerUnreachableError
from carousel.wire.carousel_pb2 import (
    CloseRequest,
    CloseResponse,
    DescribeRequest,
    DescribeResponse,
    ListModelsRequest,
    ListModelsResponse,
    OpenRequest,
    OpenResponse,
)

if TYPE_CHECKING:
    from grpc.aio import UnaryUnaryMultiCallable

Request = TypeVar("Request")
Response = TypeVar("Response")


class Calls:
    """One method a call. All raise `ServerUnreachableError` after `timeout_s`, and what the server refuses.

    Args:
        stub: The generated stub.
        target: The server's address, for messages.
        timeout_s: How long each call is tried, in seconds.
    """

    def __init__(self, stub: Any, target: str, timeout_s: float) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._stub = stub

    async def list_models(self) -> ListModelsResponse:
        """The models being served."""
        return await self._call(self._stub.ListModels, ListModelsRequest())

    async def open(self, model: str, version: str, session: str, time_to_live_s: float) -> OpenResponse:
        """Start a session, once however often the call is repeated."""
        request = OpenRequest(model=model, version=version, session=session, time_to_live_s=time_to_live_s)
        request.request_id = str(uuid.uuid4())
        return await self._call(self._stub.Open, request)

    async def describe(self, session: str) -> DescribeResponse:
        """Where a session stands."""
        return await self._call(self._stub.Describe, DescribeRequest(session=session))

    async def close(self, session: str, request_id: str) -> CloseResponse:
        """End a session; the same request id gets the same answer."""
        return await self._call(self._stub.Close, CloseRequest(session=session, request_id=request_id))

    async def _call(self, method: "UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s
        backoff = Backoff()
        while True:
            try:
                return await method(request, timeout=deadline - loop.time())
            except grpc.aio.UsageError as error:
                raise ClientClosedError("the client is closed") from error
            except grpc.aio.AioRpcError as error:
                refusal = Refusal.of_call(error)
                late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                if not refusal.passing and not late:
                    raise refusal.to_error() from error
                delay_s = backoff.next_s()
                if late or loop.time() + delay_s >= deadline:
                    message = f"no answer from {self.target} within {self.timeout_s:g} s: {refusal.message}"
                    raise ServerUnreachableError(message, refusal.reason) from error
            await asyncio.sleep(delay_s)
