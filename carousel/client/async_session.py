"""One live sequence on a server, as its caller drives it.

Axes: T steps of one chunk.
"""

import asyncio
import secrets
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from carousel.client.backoff import Backoff
from carousel.client.calls import Calls
from carousel.client.catalog import Catalog
from carousel.client.description import Description
from carousel.client.errors import InvalidInputError, Refusal, StepTimeoutError
from carousel.client.generation import Generation
from carousel.client.lane import Lane, Reply
from carousel.client.link import Link
from carousel.client.served import Arrays, Inputs, ServedModel
from carousel.client.session_log import SessionLog
from carousel.client.tensors import from_forecast, to_request, to_scenario
from carousel.contract import Contract
from carousel.wire.carousel_pb2 import ForecastRequest, ForkRequest, GenerateRequest, Reason


class AsyncSession:
    """A session, made by `AsyncClient.open` or `AsyncClient.attach`.

    Steps may be pipelined: each call of `step` takes the next index, in the order in which the calls begin. As many
    as the server's window holds are under way at once, the others wait here.
    """

    def __init__(
        self,
        session: str,
        model: ServedModel,
        pinned: bool,
        next_index: int,
        link: Link,
        calls: Calls,
        catalog: Catalog,
    ) -> None:
        self._link = link
        self._calls = calls
        self._catalog = catalog
        self._close_id = str(uuid.uuid4())
        self._lane = self._new_lane(session, model, pinned, next_index)
        self._strayed = False
        """Whether only the server knows where the session stands."""
        self._generation: Generation | None = None
        self._finding = asyncio.Lock()

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
        if self._strayed:
            await self._find_place()
        chunk = self._link.send(self._lane, length, blobs)
        limit_s = self._calls.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await chunk.reply
        except TimeoutError:
            raise StepTimeoutError(self._timeout_message(chunk.first, limit_s)) from None

    async def generate(
        self,
        prompt: Sequence[int] | NDArray[Any],
        max_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[int] = (),
    ) -> AsyncGenerator[int, None]:
        """Let the server feed the prompt and then, one after another, tokens drawn from the model's own answers.

        A lost connection, or a planned restart of the server, costs time and no token. The last token is given out and
        not fed, so that it can begin the next prompt. Whoever stops reading early stops the server too, which may by
        then have fed some tokens more than it has told.

        Args:
            prompt: Tokens, at least one.
            max_tokens: How many to make at most.
            temperature: 0 always takes the likeliest.
            top_k: Only so many of the likeliest; 0: all.
            top_p: Only the likeliest whose probabilities add up to this.
            seed: Makes the draws repeatable: they follow from it and the session's index; None: drawn anew.
            stop: Ends after any of these tokens.

        Yields:
            Tokens.

        Raises:
            InvalidInputError: steps of this session object are under way, or the values do not fit the model.
            ModelDiffersError: the model does not feed on its own answers.
            SessionGoneError: it expired, was closed, evicted or lost.
            ServerUnreachableError: no token within the client's time-out.
        """
        if self._strayed:
            await self._find_place()
        if self._lane.log.unanswered:
            raise InvalidInputError(
                "generate: await the steps that are under way first", Reason.INVALID_INPUT
            )
        request = to_request(
            GenerateRequest,
            session=self.id,
            prompt=np.asarray(prompt).tolist(),
            first_index=self.next_index,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=secrets.randbits(64) if seed is None else seed,
            stop=stop,
        )
        self._generation = generation = Generation(self._calls, request)
        self._strayed = True
        async with aclosing(generation.tokens()) as tokens:
            async for token in tokens:
                yield token
        self._lane.log.move(generation.next_index)
        self._strayed = False

    async def forecast(self, steps: int, scenarios: Sequence[Inputs]) -> list[Arrays]:
        """What the session would answer to coming steps, without moving it; from its last committed step.

        Args:
            steps: How many steps ahead.
            scenarios: For each its inputs `[T, *shape]` by name, or a bare array where the contract has one input. T is
                `steps`, or 1 for inputs that the model feeds from its own outputs.

        Returns:
            For each scenario its outputs `[steps, *shape]` by name; the caller's own.

        Raises:
            InvalidInputError: the inputs do not fit the contract or the limits.
            ModelDiffersError: outputs are fed back that cannot be.
            SessionGoneError: it expired, was closed, evicted or lost.
        """
        contract = self.contract
        request = to_request(ForecastRequest, session=self.id, steps=steps)
        request.scenarios.extend(to_scenario(contract, inputs) for inputs in scenarios)
        response = await self._calls.forecast(request)
        return [from_forecast(contract, forecasted, steps) for forecasted in response.scenarios]

    async def fork(self, copies: int | Sequence[str] = 1) -> list["AsyncSession"]:
        """Start copies of the session: its state and index as of the last committed step. Each goes its own way.

        Args:
            copies: How many, with ids that the server makes; or their ids.

        Raises:
            SessionExistsError: one of the ids belongs to a live session; then there are no copies.
            SessionGoneError: it expired, was closed, evicted or lost.
            ServerBusyError: the server takes no more sessions.
        """
        count, ids = (copies, ()) if isinstance(copies, int) else (0, copies)
        made = await self._calls.fork(to_request(ForkRequest, session=self.id, count=count, copies=ids))
        lane = self._lane
        return [
            AsyncSession(
                copy, lane.model, lane.pinned, made.next_index, self._link, self._calls, self._catalog
            )
            for copy in made.copies
        ]

    async def snapshot(self) -> bytes:
        """The state and the index of the session as of its last committed step, to be kept anywhere.

        `AsyncClient.open` starts another session from it, `restore` puts this one back.

        Raises:
            SessionGoneError: it expired, was closed, evicted or lost.
        """
        return (await self._calls.snapshot(self.id)).snapshot

    async def restore(self, snapshot: bytes) -> None:
        """Put the session back to a snapshot: its state and its index. Steps under way fail with `SessionGoneError`.

        Raises:
            SnapshotRefusedError: damaged, or another owner's; the session stands where it stood.
            ModelDiffersError: it belongs to another model; the session stands where it stood.
            SessionGoneError: it expired, was closed, evicted or lost.
        """
        lane = self._lane
        self._leave("was put back to a snapshot")
        self._lane = self._new_lane(self.id, lane.model, lane.pinned, lane.log.next_index)
        self._strayed = True
        self._lane.log.move((await self._calls.restore(self.id, snapshot)).next_index)
        self._strayed = False

    async def touch(self) -> float:
        """Put off the expiry of the session, as a step does.

        Returns:
            Seconds until it expires without another step.

        Raises:
            SessionGoneError: it expired, was closed, evicted or lost.
        """
        return (await self._calls.touch(self.id)).expires_in_s

    async def describe(self) -> Description:
        """Ask the server where the session stands.

        Raises:
            SessionGoneError: it expired, was closed, evicted or lost.
        """
        return await self._catalog.description(await self._calls.describe(self.id))

    async def close(self) -> int:
        """End the session and free its state; steps under way fail with `SessionGoneError`. May be repeated.

        Returns:
            The number of steps that the session had committed.

        Raises:
            SessionGoneError: it was gone before.
        """
        if self._lane.gone is None:
            self._leave("was closed")
        return (await self._calls.close(self.id, self._close_id)).steps

    def _new_lane(self, session: str, model: ServedModel, pinned: bool, next_index: int) -> Lane:
        limits = model.limits
        log = SessionLog[Reply](next_index, limits.window_chunks, limits.window_bytes)
        lane = Lane(session, model, model.version, log, pinned)
        self._link.join(lane)
        return lane

    def _leave(self, what: str) -> None:
        code = grpc.StatusCode.NOT_FOUND.value[0]
        gone = Refusal(code, Reason.SESSION_CLOSED, f"session {self.id!r} {what} by this client")
        self._link.leave(self._lane, gone)

    async def _find_place(self) -> None:
        """Ask the server where the session stands, once all that it was asked to do is done."""
        async with self._finding:
            backoff = Backoff()
            if self._generation is not None:
                self._generation.stop()  # it may be nobody's any more, and not yet collected
            while self._strayed:
                told = await self._calls.describe(self.id)
                if not told.queued_chunks:
                    self._lane.log.move(told.next_index)
                    self._strayed = False
                else:
                    await asyncio.sleep(backoff.next_s())

    def _timeout_message(self, first: int, limit_s: float) -> str:
        refusal = self._lane.refusal
        cause = self._link.trouble or (refusal.message if refusal else "the server has not answered")
        return (
            f"step {first}: no answer within {limit_s:g} s ({cause}); "
            "it may or may not have been applied, and the session can go on"
        )
