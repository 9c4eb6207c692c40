"""What a caller of the client can get wrong, run into, or must decide about.

Every class carries the wire's `Reason`, so that nobody parses a message.
"""

from typing import NamedTuple

import grpc

from carousel.errors import CarouselError
from carousel.wire.carousel_pb2 import ChunkError, Reason


class ClientError(CarouselError):
    """Root of everything the client raises. `reason` is a `Reason` of the wire, 0 where none fits."""

    def __init__(self, message: str, reason: int = Reason.REASON_UNSPECIFIED) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidInputError(ClientError):
    """What was sent is wrong, whatever the state of the server. The session stands where it stood."""


class ContentDiffersError(ClientError):
    """The server has seen this index with another content: somebody else steps the same session.

    Where it stands now is not known here; `attach` finds out.
    """


class ModelNotFoundError(ClientError):
    """No such model or version is being served."""


class SessionGoneError(ClientError):
    """The session never existed, or expired, was closed, evicted or lost: `reason` says which."""


class SessionExistsError(ClientError):
    """The wanted id belongs to a live session; attach to it instead."""


class IndexUnexpectedError(ClientError):
    """The server expects `expected_index`; the session object goes on from there."""

    def __init__(self, message: str, reason: int, expected_index: int) -> None:
        super().__init__(message, reason)
        self.expected_index = expected_index


class StateNotFiniteError(ClientError):
    """The step would make the state NaN or infinite; nothing was applied."""


class ServerBusyError(ClientError):
    """The server has as much as it takes: sessions, queued chunks or unacknowledged answers."""


class QuotaExceededError(ServerBusyError):
    """The caller's own quota is used up: sessions, queued chunks or steps per second."""


class UnauthenticatedError(ClientError):
    """The server asks who is calling: no token was given, or one that nobody has."""


class NotAllowedError(ClientError):
    """Only administrators may do this."""


class SnapshotRefusedError(ClientError):
    """The snapshot is damaged, not sealed by this server's key, or another owner's."""


class ModelDiffersError(ClientError):
    """The snapshot, or the call, does not belong to this model."""


class ModelFailedError(ClientError):
    """The version cannot be loaded, or unloaded; everything is as it was."""


class ServerFailedError(ClientError):
    """The fault is the server's, or lies between; nothing was applied unless the message says so."""


class ServerUnreachableError(ClientError):
    """No server answered in time, or it is going down."""


class StepTimeoutError(ClientError):
    """No answer in time. The step may or may not have been applied; the session object can go on."""


class EarlierStepFailedError(ClientError):
    """A step of the same session, made before this one, failed: this one was not applied."""


class ClientClosedError(ClientError):
    """The client was closed while the step was under way: it may or may not have been applied."""


ERRORS: dict[int, type[ClientError]] = {
    Reason.REASON_UNSPECIFIED: ServerFailedError,
    Reason.INVALID_INPUT: InvalidInputError,
    Reason.CONTENT_DIFFERS: ContentDiffersError,
    Reason.MODEL_NOT_FOUND: ModelNotFoundError,
    Reason.SESSION_NOT_FOUND: SessionGoneError,
    Reason.SESSION_EXPIRED: SessionGoneError,
    Reason.SESSION_CLOSED: SessionGoneError,
    Reason.SESSION_EVICTED: SessionGoneError,
    Reason.SESSION_LOST: SessionGoneError,
    Reason.SESSION_EXISTS: SessionExistsError,
    Reason.INDEX_UNEXPECTED: IndexUnexpectedError,
    Reason.WINDOW_FULL: ServerBusyError,
    Reason.QUEUE_FULL: ServerBusyError,
    Reason.SESSION_LIMIT: ServerBusyError,
    Reason.DRAINING: ServerUnreachableError,
    Reason.BACKEND_FAILED: ServerFailedError,
    Reason.STATE_NOT_FINITE: StateNotFiniteError,
    Reason.UNAUTHENTICATED: UnauthenticatedError,
    Reason.NOT_ALLOWED: NotAllowedError,
    Reason.QUOTA_EXCEEDED: QuotaExceededError,
    Reason.SNAPSHOT_REFUSED: SnapshotRefusedError,
    Reason.MODEL_DIFFERS: ModelDiffersError,
    Reason.MODEL_FAILED: ModelFailedError,
}

_REASONS: dict[str, int] = dict(Reason.items())
_PASSING = frozenset({Reason.WINDOW_FULL, Reason.QUEUE_FULL, Reason.DRAINING})
_UNREACHABLE: frozenset[int] = frozenset(
    code.value[0]
    # A server that goes down cancels the calls that it still has; a call cancelled on this side raises nothing of ours.
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
)


class Refusal(NamedTuple):
    """An error as it came over the wire, in a frame or as the status of a call."""

    code: int
    """A google.rpc.Code."""
    reason: int
    """A `Reason` of the wire."""
    message: str
    expected_index: int = 0

    @classmethod
    def of_chunk(cls, error: ChunkError) -> "Refusal":
        """Read an in-band error."""
        return cls(error.code, error.reason, error.message, error.expected_index)

    @classmethod
    def of_call(cls, error: grpc.aio.AioRpcError) -> "Refusal":
        """Read the status and the trailing metadata of a call or a stream."""
        trailing = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
        reason = _REASONS.get(trailing.get("carousel-reason", ""), Reason.REASON_UNSPECIFIED)
        expected = trailing.get("carousel-expected-index", "")
        message = error.details() or error.code().name
        return cls(error.code().value[0], reason, message, int(expected) if expected.isdecimal() else 0)

    @property
    def passing(self) -> bool:
        """Whether the same request can succeed a moment later."""
        return self.reason in _PASSING or (not self.reason and self.code in _UNREACHABLE)

    def to_error(self) -> ClientError:
        """A new exception for this refusal: each caller gets one of its own, since raising writes into it."""
        kind = ERRORS.get(self.reason, ServerFailedError)
        if kind is IndexUnexpectedError:
            return IndexUnexpectedError(self.message, self.reason, self.expected_index)
        if not self.reason and self.code in _UNREACHABLE:
            kind = ServerUnreachableError
        return kind(self.message, self.reason)
