"""The one table from domain errors to gRPC status codes and typed reasons."""

import grpc

from carousel.wire.carousel_pb2 import ChunkError, Reason
from service import errors
from service.errors import ServiceError

MESSAGE_CHARACTERS = 400

_Code = grpc.StatusCode

STATUS: dict[type[ServiceError], tuple[grpc.StatusCode, Reason]] = {
    errors.InvalidInputError: (_Code.INVALID_ARGUMENT, Reason.INVALID_INPUT),
    errors.ContentDiffersError: (_Code.INVALID_ARGUMENT, Reason.CONTENT_DIFFERS),
    errors.ModelNotFoundError: (_Code.NOT_FOUND, Reason.MODEL_NOT_FOUND),
    errors.SessionNotFoundError: (_Code.NOT_FOUND, Reason.SESSION_NOT_FOUND),
    errors.SessionExpiredError: (_Code.NOT_FOUND, Reason.SESSION_EXPIRED),
    errors.SessionClosedError: (_Code.NOT_FOUND, Reason.SESSION_CLOSED),
    errors.SessionEvictedError: (_Code.NOT_FOUND, Reason.SESSION_EVICTED),
    errors.SessionLostError: (_Code.NOT_FOUND, Reason.SESSION_LOST),
    errors.SessionExistsError: (_Code.ALREADY_EXISTS, Reason.SESSION_EXISTS),
    errors.IndexUnexpectedError: (_Code.ABORTED, Reason.INDEX_UNEXPECTED),
    errors.WindowFullError: (_Code.RESOURCE_EXHAUSTED, Reason.WINDOW_FULL),
    errors.QueueFullError: (_Code.RESOURCE_EXHAUSTED, Reason.QUEUE_FULL),
    errors.SessionLimitError: (_Code.RESOURCE_EXHAUSTED, Reason.SESSION_LIMIT),
    errors.DrainingError: (_Code.UNAVAILABLE, Reason.DRAINING),
    errors.BackendFailedError: (_Code.INTERNAL, Reason.BACKEND_FAILED),
    errors.StateNotFiniteError: (_Code.FAILED_PRECONDITION, Reason.STATE_NOT_FINITE),
    errors.UnauthenticatedError: (_Code.UNAUTHENTICATED, Reason.UNAUTHENTICATED),
    errors.NotAllowedError: (_Code.PERMISSION_DENIED, Reason.NOT_ALLOWED),
    errors.QuotaExceededError: (_Code.RESOURCE_EXHAUSTED, Reason.QUOTA_EXCEEDED),
    errors.SnapshotRefusedError: (_Code.INVALID_ARGUMENT, Reason.SNAPSHOT_REFUSED),
    errors.ModelDiffersError: (_Code.FAILED_PRECONDITION, Reason.MODEL_DIFFERS),
    errors.ModelFailedError: (_Code.FAILED_PRECONDITION, Reason.MODEL_FAILED),
}


def status_of(error: ServiceError) -> tuple[grpc.StatusCode, Reason]:
    """The status code and the reason of a refused request."""
    return STATUS[type(error)]


def reason_name(error: ServiceError) -> str:
    """The reason's name, as headers, metrics and logs show it."""
    return Reason.Name(status_of(error)[1])


def message_of(error: ServiceError) -> str:
    """What the caller is told, short enough for a header: messages may quote what the caller sent."""
    text = str(error)
    return text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 3] + "..."


def chunk_error(position: int, error: ServiceError) -> ChunkError:
    """The error of one chunk as it travels inside a frame."""
    code, reason = status_of(error)
    return ChunkError(
        position=position,
        code=code.value[0],
        reason=reason,
        message=message_of(error),
        expected_index=error.expected_index if isinstance(error, errors.IndexUnexpectedError) else 0,
    )
