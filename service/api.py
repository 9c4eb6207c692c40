"""The calls of `carousel.v1`: messages to the engine and back. No decisions beyond the shape of messages."""

from dataclasses import dataclass

from carousel.wire.carousel_pb2_grpc import CarouselServicer
from service.model_calls import ModelCalls
from service.session_calls import SessionCalls
from service.step_calls import StepCalls


@dataclass(frozen=True, eq=False)
class Api(StepCalls, SessionCalls, ModelCalls, CarouselServicer):
    """One servicer for every method; errors are raised as `ServiceError` and translated by the interceptor."""
