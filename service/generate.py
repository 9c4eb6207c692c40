"""Steps a session with tokens drawn from its own answers.

Each chunk is a numbered one like any client's: it shares batches with the others, counts exactly once, and is found again
by its index. A generation that stopped, wherever that was, therefore goes on by sending the chunk once more whose answer
it has not seen. It steps while somebody reads, and never more than `UNREAD_TOKENS` ahead of who reads fastest.
"""

import asyncio
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.wire import carousel_pb2 as pb
from carousel.wire.frames import NUMPY
from service.engine import Engine
from service.errors import (
    BackendFailedError,
    ContentDiffersError,
    IndexUnexpectedError,
    QuotaExceededError,
    ServiceError,
)
from service.feedback import token_ports
from service.identity import Identity
from service.repository import ServedModel
from service.step_calls import StepCaller
from service.wish import wish_of

UNREAD_TOKENS = 64
QUOTA_PAUSE_S = 0.05
"""A quota of steps slows a generation down, and does not end it."""

Finish = pb.GenerateResponse.Finish


class Past(NamedTuple):
    """Where a generation stands: with this and the same request it goes on after a restart."""

    serial: int
    """Of the session."""
    first: int
    """Index of the first token of the prompt."""
    fed: int
    """How many tokens, the prompt's included, were fed and their answers seen."""
    tokens: Sequence[int]
    """All that were made."""


class Generation:
    """The tokens of one generation, and the task that makes more of them.

    Args:
        engine: Where the session lives.
        identity: Of the caller.
        request: What it asks for.
        past: Where it stood before a restart; None: it begins.

    Raises:
        ServiceError: the session does not exist, its model does not answer tokens with scores, or the request is wrong.
    """

    def __init__(
        self, engine: Engine, identity: Identity, request: pb.GenerateRequest, past: Past | None = None
    ) -> None:
        table = engine.table
        self._engine = engine
        self._identity = identity
        self._session = request.session
        self._slot = table.find(identity.owner, request.session, engine.clock())
        model = engine.served[int(table.model[self._slot])]
        self._model, self.version = model, model.version
        """Of the model that answered last."""
        self._token, self._scores = token_ports(model.contract)
        self._wish = wish_of(request, self._token)
        self.begun = past is not None
        """Whether an answer has come: the session has moved."""
        self._serial, self._first, self._fed, tokens = past or self._beginning(request)
        # The prompt and the tokens: step first + k is fed with the k-th. The last one of all is told and not fed.
        self._sequence = array("q", [*self._wish.prompt, *tokens])
        self._readers: list[Reader] = []
        self._changed = asyncio.Event()
        self._stepping: asyncio.Task[None] | None = None

    def _beginning(self, request: pb.GenerateRequest) -> Past:
        table, slot = self._engine.table, self._slot
        self._engine.admit_offered()  # chunks that came before the call stand before it
        first = request.first_index if request.HasField("first_index") else int(table.tail[slot])
        return Past(int(table.serial[slot]), first, 0, ())

    @property
    def past(self) -> Past:
        """Where it stands."""
        return Past(self._serial, self._first, self._fed, self._sequence[len(self._wish.prompt) :])

    @property
    def held(self) -> int:
        """Numbers in memory."""
        return len(self._sequence)

    @property
    def finish(self) -> Finish:
        """Why there are no more tokens, if there are not."""
        if self._made and self._sequence[-1] in self._wish.stop:
            return pb.GenerateResponse.STOP_TOKEN
        if self._made == self._wish.max_tokens:
            return pb.GenerateResponse.MAX_TOKENS
        return pb.GenerateResponse.FINISH_UNSPECIFIED

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model.name

    @property
    def first_token(self) -> int:
        """Index of the step that the first token would be."""
        return self._first + len(self._wish.prompt)

    @property
    def _made(self) -> int:
        return len(self._sequence) - len(self._wish.prompt)

    # -- reading --------------------------------------------------------------------------------------------------

    def join(self) -> "Reader":
        """Read from the first token on; it must `leave`. Others may read at the same time."""
        reader = Reader(self)
        self._readers.append(reader)
        if not self.finish and (self._stepping is None or self._stepping.done()):
            self._stepping = asyncio.create_task(self._step_on())
            self._stepping.add_done_callback(self._stopped)
        return reader

    def leave(self, reader: "Reader") -> None:
        """It reads no more; the last to leave stops the stepping after the chunk that is running."""
        self._readers.remove(reader)
        if not self._readers and self._stepping is not None:
            self._stepping.cancel()
            self._stepping = None

    async def beyond(self, count: int) -> "array[int]":
        """The tokens after the first `count`, of which the reader has been told; none: there are no more.

        Raises:
            ServiceError: what ended the stepping.
        """
        self._tell()
        while self._made == count and not self.finish:
            if self._stepping is None or self._stepping.done():
                self._raise_why()
            await self._changed.wait()
        return self._sequence[len(self._wish.prompt) + count :]

    def _stopped(self, stepping: "asyncio.Task[None]") -> None:
        if not stepping.cancelled():
            stepping.exception()  # seen, should nobody read any more
        self._tell()

    def _raise_why(self) -> None:
        assert self._stepping is not None
        error = self._stepping.exception()
        assert error is not None
        raise error.again() if isinstance(error, ServiceError) else error

    def _tell(self) -> None:
        """Wake whoever waits for tokens or for readers."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- stepping -------------------------------------------------------------------------------------------------

    async def _step_on(self) -> None:
        while not self.finish:
            while self._made - max(reader.had for reader in self._readers) >= UNREAD_TOKENS:
                await self._changed.wait()
            await self._step()

    async def _step(self) -> None:
        """One chunk: the next part of the prompt, or the token that was drawn last."""
        left = len(self._wish.prompt) - self._fed
        length = max(1, min(left, self._served().chunk_steps))
        scores = await self._answer(self._first + self._fed, self._sequence[self._fed : self._fed + length])
        if self._fed + length == len(self._sequence):
            self._draw(scores)
        self._fed += length

    def _draw(self, scores: NDArray[np.floating]) -> None:
        index = self._first + len(self._sequence) - 1
        try:
            token = self._wish.sampling.token(scores, index)
        except ValueError as error:
            raise BackendFailedError(
                f"step {index}: no token can be drawn from the answer: {error}"
            ) from error
        self._sequence.append(token)
        self._engine.metrics_of(self._model).tokens.inc()
        self._tell()

    async def _answer(self, first: int, tokens: "array[int]") -> NDArray[np.floating]:
        """Feed tokens; returns the scores after the last of them."""
        try:
            while True:
                try:
                    with self._identity.account.taking(len(tokens), self._engine.clock()):
                        return await self._feed(first, tokens)
                except QuotaExceededError:
                    if not self.begun:
                        raise
                await asyncio.sleep(QUOTA_PAUSE_S)
        except ContentDiffersError as error:
            if not self._made:
                raise
            tail = int(self._engine.table.tail[self._slot])
            raise IndexUnexpectedError(
                f"first index: expected {tail}, got {first} (another caller steps the session)", tail
            ) from error

    async def _feed(self, first: int, tokens: "array[int]") -> NDArray[np.floating]:
        engine, table, slot = self._engine, self._engine.table, self._slot
        waiting = StepCaller(engine, self._identity.owner, self._session)
        if table.serial[slot] != self._serial:
            raise waiting.gone(0)
        # Who generates has every answer before the prompt, and this loop those since.
        acknowledged = min(first, int(table.next_index[slot]))
        blob = np.array(tokens, NUMPY[self._token.dtype]).tobytes()
        model = self._served()
        engine.offer(model, waiting, [slot], [self._serial], [first], [len(tokens)], [acknowledged], [blob])
        try:
            answers = await waiting.answer
        finally:
            engine.leave(waiting)
        self._model, self.version, self.begun = model, answers.version, True
        port = model.contract.outputs[self._scores]
        scores: NDArray[np.floating] = np.frombuffer(answers.outputs[self._scores], NUMPY[port.dtype])
        return scores[-port.size :]

    def _served(self) -> ServedModel:
        """What steps the session now: another version may have taken over."""
        return self._engine.served[int(self._engine.table.model[self._slot])]


class Reader:
    """One call that is sent the tokens."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.had = 0
        """Tokens that were written."""
        self._read = 0

    async def next(self) -> pb.GenerateResponse | None:
        """What to write next, as soon as there is anything; asking for it says that the one before was written."""
        generation = self._generation
        self.had = self._read
        tokens = await generation.beyond(self.had)
        if not tokens:
            return None
        self._read += len(tokens)
        return pb.GenerateResponse(
            tokens=tokens,
            first_index=generation.first_token + self.had,
            finish=generation.finish,
            model=generation.model,
            version=generation.version,
        )

    def leave(self) -> None:
        """Read no more."""
        self._generation.leave(self)
