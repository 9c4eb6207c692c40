"""The Python client, asynchronous and blocking: what to import, and what it can raise.

from carousel.client import AsyncClient, Client
"""

from carousel.client.async_client import AsyncClient
from carousel.client.async_session import AsyncSession
from carousel.client.description import Description
from carousel.client.errors import (
    ClientClosedError,
    ClientError,
    ContentDiffersError,
    EarlierStepFailedError,
    IndexUnexpectedError,
    InvalidInputError,
    ModelDiffersError,
    ModelFailedError,
    ModelNotFoundError,
    NotAllowedError,
    QuotaExceededError,
    ServerBusyError,
    ServerFailedError,
    ServerUnreachableError,
    SessionExistsError,
    SessionGoneError,
    SnapshotRefusedError,
    StateNotFiniteError,
    StepTimeoutError,
    UnauthenticatedError,
)
from carousel.client.served import Arrays, FailedModel, Inputs, Limits, Loaded, ServedModel
from carousel.client.sync_client import Client, Session

__all__ = [
    "Arrays",
    "AsyncClient",
    "AsyncSession",
    "Client",
    "ClientClosedError",
    "ClientError",
    "ContentDiffersError",
    "Description",
    "EarlierStepFailedError",
    "FailedModel",
    "IndexUnexpectedError",
    "Inputs",
    "InvalidInputError",
    "Limits",
    "Loaded",
    "ModelDiffersError",
    "ModelFailedError",
    "ModelNotFoundError",
    "NotAllowedError",
    "QuotaExceededError",
    "ServedModel",
    "ServerBusyError",
    "ServerFailedError",
    "ServerUnreachableError",
    "Session",
    "SessionExistsError",
    "SessionGoneError",
    "SnapshotRefusedError",
    "StateNotFiniteError",
    "StepTimeoutError",
    "UnauthenticatedError",
]
