"""The calls of `carousel.v1`: messages to the engine and back. No decisions beyond the shape of messages."""

import asyncio
import math
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import MessageToJson, Parse

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselServicer
from service.cohort import Answers, Cohort
from service.dispatcher import settle
from service.engine import Engine
from service.errors import InvalidInputError, ModelNotFoundError, ServiceError, SessionClosedError
from service.group import blobs_of
from service.kept import WINDOW_BYTES, WINDOW_CHUNKS
from service.metrics import Metrics
from service.replays import Replays
from service.repository import ServedModel
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
        engine = self._engine
        slot = engine.table.find(OWNER, request.session, engine.clock())
        model = engine.served[int(engine.table.model[slot])]
        length = request.length or 1
        blobs = blobs_of(model.contract.inputs, request.inputs, length)
        caller = StepCaller(engine, OWNER, request.session)
        engine.offer(
            model,
            caller,
            [slot],
            [int(engine.table.serial[slot])],
            [request.first_index] if request.HasField("first_index") else None,
            [length],
            [request.acknowledged],
            blobs,
        )
        try:
            return _step_response(model, await caller.answer)
        finally:
            engine.leave(caller)

    async def Open(self, request: pb.OpenRequest, context: "Context") -> pb.OpenResponse:
        """Start a session."""
        owner, now = OWNER, self._engine.clock()
        content = request.SerializeToString(deterministic=True)
        if (made := self._opened.find(owner, request.request_id, content, now)) is not None:
            return made
        self._engine.rules.check_open()
        model = self._find_model(request.model, request.version)
        ttl_s = request.time_to_live_s or self._ttl_s
        if not 0 < ttl_s <= MAX_TTL_S or math.isnan(ttl_s):
            raise InvalidInputError(
                f"time_to_live_s: expected more than 0 and at most {MAX_TTL_S:.0f}, got {ttl_s}"
            )
        table = self._engine.table
        slot = table.open(owner, request.session, model.number, ttl_s, now)
        self._metrics.opened.inc()
        made = pb.OpenResponse(
            session=table.id_of(slot), model=model.name, version=model.version, time_to_live_s=ttl_s
        )
        self._opened.keep(owner, request.request_id, content, made, now)
        return made

    async def Describe(self, request: pb.DescribeRequest, context: "Context") -> pb.DescribeResponse:
        """Where a session stands."""
        now = self._engine.clock()
        table, kept = self._engine.table, self._engine.kept
        slot = table.find(OWNER, request.session, now)
        model = self._engine.served[int(table.model[slot])]
        answers = kept.of(slot, int(table.acknowledged[slot]))
        return pb.DescribeResponse(
            session=request.session,
            model=model.name,
            version=model.version,
            next_index=int(table.next_index[slot]),
            queued_chunks=len(self._engine.queue.chain(slot)),
            kept_answers=len(answers),
            kept_bytes=sum(answer.length for answer in answers) * model.step_bytes,
            expires_in_s=max(0.0, int(table.used_us[slot] + table.ttl_us[slot]) / 1e6 - now),
        )

    async def Close(self, request: pb.CloseRequest, context: "Context") -> pb.CloseResponse:
        """End a session."""
        owner, now = OWNER, self._engine.clock()
        content = request.SerializeToString(deterministic=True)
        if (done := self._closed.find(owner, request.request_id, content, now)) is not None:
            return done
        slot = self._engine.table.find(owner, request.session, now)
        steps = int(self._engine.table.next_index[slot])
        self._engine.end(slot, SessionClosedError)
        done = pb.CloseResponse(steps=steps)
        self._closed.keep(owner, request.request_id, content, done, now)
        return done

    async def ListModels(self, _: pb.ListModelsRequest, context: "Context") -> pb.ListModelsResponse:
        """The models being served, with contracts and limits."""
        return pb.ListModelsResponse(models=[self._describe(model) for model in self._engine.models.values()])

    def dump_calls(self) -> dict[str, Any]:
        """The answers of calls that may be repeated after a restart, as JSON."""
        now = self._engine.clock()
        return {
            "opened": self._opened.dump(MessageToJson, now),
            "closed": self._closed.dump(MessageToJson, now),
        }

    def load_calls(self, calls: dict[str, Any]) -> None:
        """Put back what `dump_calls` gave."""
        now = self._engine.clock()
        self._opened.load(calls["opened"], lambda text: Parse(text, pb.OpenResponse()), now)
        self._closed.load(calls["closed"], lambda text: Parse(text, pb.CloseResponse()), now)

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


class StepCaller:
    """Waits for the one chunk of a unary call."""

    def __init__(self, engine: Engine, owner: str, session_id: str) -> None:
        self._engine = engine
        self._session = (owner, session_id)
        self.answer: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self.left = False
        self.waits: list[Cohort] = []

    def answered(self, answers: Answers) -> None:
        """The chunk was committed."""
        settle(self.answer, answers)

    def refused(self, position: int, error: ServiceError) -> None:
        """The chunk was not applied."""
        settle(self.answer, error)

    def gone(self, position: int) -> ServiceError:
        """Why the session is no more."""
        try:
            self._engine.table.find(*self._session, self._engine.clock())
        except ServiceError as error:
            return error.again()
        return SessionClosedError("the session ended, and a new one has its id")


def _step_response(model: ServedModel, answers: Answers) -> pb.StepResponse:
    response = pb.StepResponse(
        first_index=answers.firsts[0], length=answers.length, model=model.name, version=model.version
    )
    for port, blob in zip(model.contract.outputs, answers.outputs, strict=True):
        response.outputs.add(name=port.name, data=blob)
    return response
