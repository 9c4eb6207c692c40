"""The calls of `carousel.v1`: messages to the engine and back. No decisions beyond the shape of messages."""

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselServicer
from service.decode import decode_steps
from service.dispatcher import settle
from service.engine import Engine
from service.errors import InvalidInputError, ModelNotFoundError, ServiceError, SessionClosedError
from service.metrics import Metrics
from service.replays import Replays
from service.repository import ServedModel
from service.session import WINDOW_BYTES, WINDOW_CHUNKS, Answer
from service.sessions import MAX_TTL_S
from service.stream import STREAM_CHUNKS, StreamCall

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

OWNER = "anonymous"
"""Whose sessions these are: everybody is the same owner until identities can be configured."""


class Api(CarouselServicer):
    """One servicer for every method; errors are raised as `ServiceError` and translated by the interceptor."""

    def __init__(self, engine: Engine, metrics: Metrics, ttl_s: float, message_bytes: int) -> None:
        self._engine = engine
        self._metrics = metrics
        self._ttl_s = ttl_s
        self._message_bytes = message_bytes
        self._opened: Replays[pb.OpenResponse] = Replays()
        self._closed: Replays[pb.CloseResponse] = Replays()

    async def Stream(self, _: Any, context: "Context") -> None:
        """Steps of any number of sessions, as columnar frames."""
        with self._metrics.streams.track_inprogress():
            await StreamCall(self._engine, self._metrics, OWNER, context).run()

    async def Step(self, request: pb.StepRequest, context: "Context") -> pb.StepResponse:
        """One chunk of one session."""
        session = self._engine.table.get(OWNER, request.session, self._engine.clock())
        model = self._engine.models[session.model]
        first = request.first_index if request.HasField("first_index") else None
        steps = decode_steps(
            model.contract, request.inputs, [first], [request.length or 1], [request.acknowledged]
        )[0]
        if isinstance(steps, ServiceError):
            raise steps
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        waiter = partial(settle, future)
        chunk = self._engine.submit(session, steps, waiter)
        try:
            answer = await future
        finally:
            if chunk is not None:
                self._engine.leave(chunk, waiter)
        return _step_response(model, answer)

    async def Open(self, request: pb.OpenRequest, context: "Context") -> pb.OpenResponse:
        """Start a session."""
        owner, now = OWNER, self._engine.clock()
        content = request.SerializeToString(deterministic=True)
        if (made := self._opened.find(owner, request.request_id, content, now)) is not None:
            return made
        self._engine.check_open()
        model = self._find_model(request.model, request.version)
        ttl_s = request.time_to_live_s or self._ttl_s
        if not 0 < ttl_s <= MAX_TTL_S or math.isnan(ttl_s):
            raise InvalidInputError(
                f"time_to_live_s: expected more than 0 and at most {MAX_TTL_S:.0f}, got {ttl_s}"
            )
        session = self._engine.table.open(owner, request.session, model.key, ttl_s, now)
        self._metrics.opened.inc()
        made = pb.OpenResponse(
            session=session.id, model=model.name, version=model.version, time_to_live_s=ttl_s
        )
        self._opened.keep(owner, request.request_id, content, made, now)
        return made

    async def Describe(self, request: pb.DescribeRequest, context: "Context") -> pb.DescribeResponse:
        """Where a session stands."""
        now = self._engine.clock()
        session = self._engine.table.get(OWNER, request.session, now)
        model = self._engine.models[session.model]
        return pb.DescribeResponse(
            session=session.id,
            model=model.name,
            version=model.version,
            next_index=session.next_index,
            queued_chunks=len(session.pending),
            kept_answers=len(session.kept),
            kept_bytes=session.kept_bytes,
            expires_in_s=max(0.0, session.last_used + session.ttl_s - now),
        )

    async def Close(self, request: pb.CloseRequest, context: "Context") -> pb.CloseResponse:
        """End a session."""
        owner, now = OWNER, self._engine.clock()
        content = request.SerializeToString(deterministic=True)
        if (done := self._closed.find(owner, request.request_id, content, now)) is not None:
            return done
        session = self._engine.table.get(owner, request.session, now)
        self._engine.end(session, SessionClosedError)
        done = pb.CloseResponse(steps=session.next_index)
        self._closed.keep(owner, request.request_id, content, done, now)
        return done

    async def ListModels(self, _: pb.ListModelsRequest, context: "Context") -> pb.ListModelsResponse:
        """The models being served, with contracts and limits."""
        return pb.ListModelsResponse(models=[self._describe(model) for model in self._engine.models.values()])

    def _find_model(self, name: str, version: str) -> ServedModel:
        for model in self._engine.models.values():
            if model.name == name and version in ("", model.version):
                return model
        served = ", ".join(sorted(self._engine.models))
        wanted = f"{name}/{version}" if version else name
        raise ModelNotFoundError(f"model {wanted!r} is not served; served are: {served}")

    def _describe(self, model: ServedModel) -> pb.Model:
        limits = pb.Limits(
            chunk_steps=model.chunk_steps,
            window_chunks=WINDOW_CHUNKS,
            window_bytes=WINDOW_BYTES,
            message_bytes=self._message_bytes,
            stream_chunks=STREAM_CHUNKS,
        )
        return pb.Model(
            name=model.name, version=model.version, contract=model.contract.to_json(), limits=limits
        )


def _step_response(model: ServedModel, answer: Answer) -> pb.StepResponse:
    response = pb.StepResponse(
        first_index=answer.first, length=answer.length, model=model.name, version=model.version
    )
    for port, blob in zip(model.contract.outputs, answer.outputs, strict=True):
        response.outputs.add(name=port.name, data=blob)
    return response
