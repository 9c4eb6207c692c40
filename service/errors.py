"""What can go wrong with a request, in the words of the domain. `service/status.py` translates to gRPC."""

from typing import Self

from carousel.errors import CarouselError


class ServiceError(CarouselError):
    """A request that is refused. The message may be shown to the caller."""

    def again(self) -> Self:
        """A copy to raise or to hand out: an error that is kept must not collect the frames it was raised through."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        return twin


class InvalidInputError(ServiceError):
    """Wrong whatever the state of the server."""


class ContentDiffersError(ServiceError):
    """The index was sent before with another content or length."""


class ModelNotFoundError(ServiceError):
    """No such model or version is being served."""


class SessionNotFoundError(ServiceError):
    """The session never existed, as far as this caller may know."""


class SessionGoneError(ServiceError):
    """The session is no more; each way of going is a class of its own."""


class SessionExpiredError(SessionGoneError):
    """Nothing came for longer than its time-to-live."""


class SessionClosedError(SessionGoneError):
    """Its owner closed it."""


class SessionEvictedError(SessionGoneError):
    """The server needed its place."""


class SessionLostError(SessionGoneError):
    """A crash or an unplanned restart took it."""


class SessionExistsError(ServiceError):
    """The wanted id belongs to a live session."""


class IndexUnexpectedError(ServiceError):
    """A gap, or an index older than what is kept."""

    def __init__(self, message: str, expected_index: int) -> None:
        super().__init__(message)
        self.expected_index = expected_index


class WindowFullError(ServiceError):
    """Too many answers of the session are not acknowledged."""


class QueueFullError(ServiceError):
    """The server has as much work waiting as it takes."""


class QuotaExceededError(ServiceError):
    """The owner has as much of something as it may; others are not concerned."""


class UnauthenticatedError(ServiceError):
    """No token came, or one that nobody has."""


class NotAllowedError(ServiceError):
    """Only administrators may do this."""


class SnapshotRefusedError(ServiceError):
    """The snapshot is damaged, not sealed by this server's key, or another owner's."""


class ModelDiffersError(ServiceError):
    """The snapshot, or the call, does not belong to this model."""


class ModelFailedError(ServiceError):
    """The version cannot be loaded, or unloaded; everything is as it was."""


class SessionLimitError(ServiceError):
    """The server has as many sessions as it takes."""


class DrainingError(ServiceError):
    """The server is going down."""


class BackendFailedError(ServiceError):
    """The run failed; nothing was applied. The cause is in the server's log only."""


class StateNotFiniteError(ServiceError):
    """The step would make the state NaN or infinite; nothing was applied."""
