"""One live sequence on a server, as its caller drives it.

Axes: T steps of one chunk.
"""

import asyncio
import uuid
from typing import NamedTuple

import grpc

from carousel.client.calls import Calls
from carousel.client.errors import Refusal, StepTimeoutError
from carousel.client.lane import Lane
from carousel.client.link import Link
from carousel.client.served import Arrays, Inputs, ServedModel
from carousel.client.session_log import SessionLog
from carousel.contract import Contract
from carousel.wire.carousel_pb2 import Reason


class Description(NamedTuple):
    """Where a session stands on the server."""

    next_index: int
    """The number of committed steps."""
    version: str
    queued_chunks: int
    kept_answers: int
    kept_bytes: int
    expires_in_s: float


class AsyncSession:
    """A session, made by `AsyncClient.open` or `AsyncClient.attach`.

    Steps may be pipelined: each call of `step` takes the next index, in the order in which the calls begin. As many
    as the server's window holds are under way at once, the others wait here.
    """

    def __init__(self, session: str, model: ServedModel, next_index: int, link: Link, calls: Calls) -> None:
        limits = model.limits
        log = SessionLog[asyncio.Future[Arrays]](next_index, limits.window_chunks, limits.window_bytes)
        self._lane = Lane(session, model, model.version, log)
        self._link = link
        self._calls = calls
        self._close_id = str(uuid.uuid4())
        link.join(self._lane)

    @property
    def id(self) -> str:
        """Names the session on the server, for `attach`."""
        return self._lane.session

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._lane.model.name

    @property
    def version(self) -> str:
        """The version of the model that gave the last answer."""
        return self._lane.version

    @property
    def contract(self) -> Contract:
        """What the model takes and gives."""
        return self._lane.model.contract

    @property
    def chunk_steps(self) -> int:
        """T of the longest chunk that `step` takes."""
        return self._lane.model.chunk_steps

    @property
    def next_index(self) -> int:
        """Index that the next call of `step` will take: committed steps and those under way."""
        return self._lane.log.next_index

    async def step(self, inputs: Inputs, *, timeout_s: float | None = None) -> Arrays:
        """Apply T steps, once, whatever the network does.

        A step that fails was not applied and leaves the session where it was; those that were called after it and are
        not answered fail with `EarlierStepFailedError`. The next call takes the index of the one that failed.

        Args:
            inputs: Arrays `[T, *shape]` by input name, with exactly the contract's dtypes; a bare array
                where the contract has one input. T is 1 to `chunk_steps`.
            timeout_s: How long to wait for the answer, in seconds, lost connections and full queues
                included; None: the client's.

        Returns:
            Arrays `[T, *shape]` by output name; the caller's own.

        Raises:
            InvalidInputError: the inputs do not fit the contract or the limits.
            StepTimeoutError: no answer in time. The step was made and goes on without its caller: it may or may not be
                applied, later steps follow it, and its outputs are dropped. The same holds for a cancelled call.
            SessionGoneError: it expired, was closed, evicted or lost.
            IndexUnexpectedError, ContentDiffersError: somebody else steps this session.
            StateNotFiniteError, ServerFailedError: the run failed.
            EarlierStepFailedError: see above.
        """
        length, blobs = self._lane.model.to_blobs(inputs)
        chunk = self._link.send(self._lane, length, blobs)
        limit_s = self._calls.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await chunk.reply
        except TimeoutError:
            raise StepTimeoutError(self._timeout_message(chunk.first, limit_s)) from None

    async def describe(self) -> Description:
        """Ask the server where the session stands.

        Raises:
            SessionGoneError: it expired, was closed, evicted or lost.
        """
        told = await self._calls.describe(self.id)
        return Description(
            told.next_index,
            told.version,
            told.queued_chunks,
            told.kept_answers,
            told.kept_bytes,
            told.expires_in_s,
        )

    async def close(self) -> int:
        """End the session and free its state; steps under way fail with `SessionGoneError`. May be repeated.

        Returns:
            The number of steps that the session had committed.

        Raises:
            SessionGoneError: it was gone before.
        """
        if self._lane.gone is None:
            code = grpc.StatusCode.NOT_FOUND.value[0]
            gone = Refusal(code, Reason.SESSION_CLOSED, f"session {self.id!r} was closed by this client")
            self._link.leave(self._lane, gone)
        return (await self._calls.close(self.id, self._close_id)).steps

    def _timeout_message(self, first: int, limit_s: float) -> str:
        refusal = self._lane.refusal
        cause = self._link.trouble or (refusal.message if refusal else "the server has not answered")
        return (
            f"step {first}: no answer within {limit_s:g} s ({cause}); "
            "it may or may not have been applied, and the session can go on"
        )
