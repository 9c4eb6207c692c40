"""The calls of `carousel.v1`: messages to the engine and back. No decisions beyond the shape of messages."""

from dataclasses import dataclass
from typing import Any

from carousel.wire.carousel_pb2_grpc import CarouselServicer
from service.loop_calls import LoopCalls
from service.model_calls import ModelCalls
from service.session_calls import SessionCalls
from service.step_calls import StepCalls
from service.view_calls import ViewCalls
from service.whole_calls import WholeCalls


@dataclass(frozen=True, eq=False)
class Api(StepCalls, SessionCalls, ViewCalls, LoopCalls, WholeCalls, ModelCalls, CarouselServicer):
    """One servicer for every method; errors are raised as `ServiceError` and translated by the interceptor."""

    def dump_calls(self) -> dict[str, Any]:
        """What is known of calls that may be repeated after a restart, as JSON."""
        return {**super().dump_calls(), "generated": self.dump_generations()}

    def load_calls(self, calls: dict[str, Any]) -> None:
        """Put back what `dump_calls` gave."""
        super().load_calls(calls)
        self.load_generations(calls.get("generated", []))
