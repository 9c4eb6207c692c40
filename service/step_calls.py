"""Steps: the stream and its unary twin."""

import asyncio
from typing import TYPE_CHECKING, Any

from carousel.wire import carousel_pb2 as pb
from service.calls import Calls
from service.cohort import Answers, Cohort
from service.dispatcher import settle
from service.engine import Engine
from service.errors import ServiceError, SessionClosedError
from service.group import blobs_of
from service.identity import caller
from service.repository import ServedModel
from service.stream import StreamCall

if TYPE_CHECKING:
    from service.calls import Context


class StepCalls(Calls):
    """`Stream` and `Step`."""

    async def Stream(self, _: Any, context: "Context") -> None:
        """Steps of any number of sessions, as columnar frames."""
        with self.metrics.streams.track_inprogress():
            await StreamCall(self.engine, self.metrics, caller.get(), context).run()

    async def Step(self, request: pb.StepRequest, context: "Context") -> pb.StepResponse:
        """One chunk of one session."""
        engine, (owner, _, account) = self.engine, caller.get()
        slot = engine.table.find(owner, request.session, engine.clock())
        model = engine.served[int(engine.table.model[slot])]
        length = request.length or 1
        blobs = blobs_of(model.contract.inputs, request.inputs, length)
        waiting = StepCaller(engine, owner, request.session)
        with account.taking(length, engine.clock()):
            engine.offer(
                model,
                waiting,
                [slot],
                [int(engine.table.serial[slot])],
                [request.first_index] if request.HasField("first_index") else None,
                [length],
                [request.acknowledged],
                blobs,
            )
            try:
                return _step_response(model, await waiting.answer)
            finally:
                engine.leave(waiting)


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
        first_index=answers.firsts[0], length=answers.length, model=model.name, version=answers.version
    )
    for port, blob in zip(model.contract.outputs, answers.outputs, strict=True):
        response.outputs.add(name=port.name, data=blob)
    return response
