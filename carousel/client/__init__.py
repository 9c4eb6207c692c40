"""The Python client, asynchronous and blocking: what to import, and what it can raise.

from carousel.client import AsyncClient, Client
"""

from carousel.client.async_client import AsyncClient
from carousel.client.async_session import AsyncSession, Description
from carousel.client.errors import (
    ClientClosedError,
    ClientError,
    ContentDiffersError,
    EarlierStepFailedError,
    IndexUnexpectedError,
    InvalidInputError,
    ModelNotFoundError,
    ServerBusyError,
    ServerFailedError,
    ServerUnreachableError,
    SessionExistsError,
    SessionGoneError,
    StateNotFiniteError,
    StepTimeoutError,
)
from carousel.client.served import Arrays, Inputs, Limits, ServedModel
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
    "IndexUnexpectedError",
    "Inputs",
    "InvalidInputError",
    "Limits",
    "ModelNotFoundError",
    "ServedModel",
    "ServerBusyError",
    "ServerFailedError",
    "ServerUnreachableError",
    "Session",
    "SessionExistsError",
    "SessionGoneError",
    "StateNotFiniteError",
    "StepTimeoutError",
]
