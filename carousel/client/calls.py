"""The unary calls of the client, repeated while the server cannot be reached."""

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from carousel.client.backoff import Backoff
from carousel.client.errors import ClientClosedError, Refusal, ServerUnreachableError
from carousel.wire import carousel_pb2 as pb

if TYPE_CHECKING:
    from grpc.aio import UnaryStreamCall, UnaryUnaryMultiCallable

    Tokens = UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]

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

    async def open(self, request: pb.OpenRequest) -> pb.OpenResponse:
        """Start a session, once however often the call is repeated."""
        request.request_id = str(uuid.uuid4())
        return await self._call(self._stub.Open, request)

    async def fork(self, request: pb.ForkRequest) -> pb.ForkResponse:
        """Start copies of a session, once however often the call is repeated."""
        request.request_id = str(uuid.uuid4())
        return await self._call(self._stub.Fork, request)

    async def snapshot(self, session: str) -> pb.SnapshotResponse:
        """The state of a session as bytes."""
        return await self._call(self._stub.Snapshot, pb.SnapshotRequest(session=session))

    async def restore(self, session: str, snapshot: bytes) -> pb.RestoreResponse:
        """Put a session back to a snapshot, once however often the call is repeated."""
        request = pb.RestoreRequest(session=session, snapshot=snapshot, request_id=str(uuid.uuid4()))
        return await self._call(self._stub.Restore, request)

    async def describe(self, session: str) -> pb.DescribeResponse:
        """Where a session stands."""
        return await self._call(self._stub.Describe, pb.DescribeRequest(session=session))

    async def list_sessions(self, request: pb.ListSessionsRequest) -> pb.ListSessionsResponse:
        """One page of sessions."""
        return await self._call(self._stub.ListSessions, request)

    async def touch(self, session: str) -> pb.TouchResponse:
        """Put off the expiry of a session."""
        return await self._call(self._stub.Touch, pb.TouchRequest(session=session))

    async def close(self, session: str, request_id: str) -> pb.CloseResponse:
        """End a session; the same request id gets the same answer."""
        return await self._call(self._stub.Close, pb.CloseRequest(session=session, request_id=request_id))

    def generate(self, request: pb.GenerateRequest) -> "Tokens":
        """One try at tokens; `Generation` makes the next."""
        try:
            tokens: Tokens = self._stub.Generate(request)
        except grpc.aio.UsageError as error:
            raise ClientClosedError("the client is closed") from error
        return tokens

    async def forecast(self, request: pb.ForecastRequest) -> pb.ForecastResponse:
        """What a session would answer."""
        return await self._call(self._stub.Forecast, request)

    async def infer(self, request: pb.InferRequest) -> pb.InferResponse:
        """Run a whole-input model."""
        return await self._call(self._stub.Infer, request)

    async def list_models(self) -> pb.ListModelsResponse:
        """The models being served."""
        return await self._call(self._stub.ListModels, pb.ListModelsRequest())

    async def load_model(self, name: str, version: str) -> pb.LoadModelResponse:
        """Serve a version. Loading what is loaded changes nothing, so it may be repeated."""
        return await self._call(self._stub.LoadModel, pb.LoadModelRequest(name=name, version=version))

    async def unload_model(self, name: str, version: str) -> pb.UnloadModelResponse:
        """Take no new sessions of a version."""
        return await self._call(self._stub.UnloadModel, pb.UnloadModelRequest(name=name, version=version))

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
