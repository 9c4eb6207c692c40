"""Models that need all of their input at once: one run a call, between the runs that step sessions."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from carousel.wire import carousel_pb2 as pb
from service.between_runs import between_runs
from service.calls import Calls
from service.errand import Job
from service.errors import BackendFailedError, InvalidInputError, QueueFullError
from service.identity import caller
from service.repository import WholeModel
from service.whole_graph import Ran
from service.whole_inputs import Sizes, WholeInputs, answer_bytes, whole_inputs

if TYPE_CHECKING:
    from service.calls import Context

STEPS = 64
"""Of each member of a batch as large as any: nobody waits longer for a whole input."""
WAITING = 32
"""Most calls of `Infer` whose turn has not come: each may hold a message in memory."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Inference:
    """One call of `Infer`."""

    model: WholeModel
    inputs: WholeInputs | None
    """None: its caller has left, and what came is let go of."""

    def start(self) -> Job:
        """What is to be done when its turn has come: nothing, if nobody waits for it any more."""
        return _nothing if self.inputs is None else partial(self.model.graph.run, self.inputs)


@dataclass(frozen=True, eq=False)
class WholeCalls(Calls):
    """`Infer`."""

    _waiting: set[Inference] = field(default_factory=set, init=False)

    async def Infer(self, request: pb.InferRequest, context: "Context") -> pb.InferResponse:
        """Run a whole-input model once. It is not run any more when its caller has left, or its deadline has passed."""
        engine = self.engine
        engine.rules.check_open()
        model = engine.models.find_whole(request.model, request.version)
        limits = engine.limits
        most = limits.batch_chunks * min(limits.run_steps, STEPS)
        inputs = whole_inputs(model.contract, request.inputs, most)
        self._check_answer(model, inputs.sizes)
        if len(self._waiting) >= WAITING:
            raise QueueFullError(
                f"{WAITING} whole inputs wait for their turn, which is as many as may; try again"
            )
        inference = Inference(model, inputs)
        self._waiting.add(inference)
        try:
            with caller.get().account.taking(inputs.steps, engine.clock()):
                ran = await self._run(inference)
        finally:
            inference.inputs = None
            self._waiting.remove(inference)
        return _response(model, ran)

    async def _run(self, inference: Inference) -> Ran:
        metrics = self.metrics.of_model(inference.model.key)
        try:
            ran: Ran = await between_runs(self.engine, inference.start, lambda ran: ran)
        except BackendFailedError:
            metrics.failed_runs.inc()
            raise
        metrics.run_seconds.observe(ran.seconds, 1)
        if ran.seconds >= self.engine.limits.slow_run_s:
            _log.warning("slow_run", model=inference.model.key, seconds=round(ran.seconds, 3))
        return ran

    def _check_answer(self, model: WholeModel, sizes: Sizes) -> None:
        size = answer_bytes(model.contract, sizes)
        if size > self.message_bytes:
            raise InvalidInputError(
                f"expected inputs whose answer fits into a message of {self.message_bytes} bytes, it would have {size}"
            )


def _nothing() -> None:
    pass


def _response(model: WholeModel, ran: Ran) -> pb.InferResponse:
    response = pb.InferResponse(model=model.name, version=model.version)
    for port, array in zip(model.contract.outputs, ran.outputs, strict=True):
        response.outputs.add(name=port.name, shape=array.shape, data=array.tobytes())
    return response
