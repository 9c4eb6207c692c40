"""Tokens made on the server, over as many connections as it takes.

Law: the tokens given out are those that one unbroken call would have given out. A call that was cut off is repeated with
the same request id, which tells all tokens from the beginning; those that were had are passed over. A server that was
restarted meanwhile does not know the id, but it says where the session stands, and draws the same numbers from
(seed, index): there the rest is asked for, beginning with the tokens that it has not been fed.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from carousel.client.backoff import Backoff
from carousel.client.calls import Calls
from carousel.client.errors import InvalidInputError, Refusal, ServerUnreachableError
from carousel.wire.carousel_pb2 import GenerateRequest, GenerateResponse, Reason

if TYPE_CHECKING:
    from carousel.client.calls import Tokens


class Generation:
    """One generation, from its first token to its last.

    Args:
        calls: The calls of the client.
        request: With the index of the first token of the prompt, and without a request id.
    """

    def __init__(self, calls: Calls, request: GenerateRequest) -> None:
        self.finished = False
        """Whether the last token has come: the session then stands at `next_index`."""
        self.next_index = request.first_index
        """Index of the last token that came; it has not been fed."""
        self._calls = calls
        self._request = request
        self._request.request_id = str(uuid.uuid4())
        self._known = list(request.prompt)
        """The prompt and all tokens that came: step `_start + k` is fed with `_known[k]`."""
        self._start = request.first_index
        self._prompt = len(self._known)
        self._most = self._prompt + request.max_tokens
        self._had = 0
        """Tokens that came in answer to the present request id."""
        self._call: Tokens | None = None
        self._stopped = False

    async def tokens(self) -> AsyncGenerator[int, None]:
        """The tokens, as they are made.

        Raises:
            ServerUnreachableError: no token within the client's time-out.
            ClientError: what the server refuses.
        """
        loop = asyncio.get_running_loop()
        backoff, last = Backoff(), loop.time()
        broken = False
        while not self.finished:
            try:
                async with aclosing(self._attempt()) as tokens:
                    async for token in tokens:
                        yield token
                        backoff, last = Backoff(), loop.time()
            except grpc.aio.AioRpcError as error:
                refusal = Refusal.of_call(error)
                elsewhere = refusal.reason == Reason.INDEX_UNEXPECTED
                if broken and elsewhere and self._go_on(refusal.expected_index):
                    broken = False  # once for each restart: what is refused then is somebody else's doing
                    continue
                delay_s = backoff.next_s()
                if not refusal.passing:
                    raise refusal.to_error() from error
                if loop.time() + delay_s >= last + self._calls.timeout_s:
                    raise self._unreachable(refusal.message, refusal.reason) from error
                broken = True
                await asyncio.sleep(delay_s)

    def stop(self) -> None:
        """Let the server make no more. Whoever reads on gets the tokens that have come, and then an error."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()

    async def _attempt(self) -> AsyncGenerator[int, None]:
        """The tokens that one call adds to those that came."""
        self._call = call = self._calls.generate(self._request)
        told = 0
        try:
            while isinstance(response := await self._read(call), GenerateResponse):
                for index, token in enumerate(response.tokens, start=response.first_index):
                    told += 1
                    if told > self._had:
                        self._had = told
                        self._known.append(token)
                        self.next_index = index
                        yield token
            self.finished = True
        finally:
            call.cancel()

    async def _read(self, call: "Tokens") -> object:
        try:
            async with asyncio.timeout(self._calls.timeout_s):
                return await call.read()
        except TimeoutError:
            raise self._unreachable("the server has not answered") from None
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            message = "generate: ended, since the session was used for something else meanwhile"
            raise InvalidInputError(message, Reason.INVALID_INPUT) from None

    def _go_on(self, index: int) -> bool:
        """Ask for the rest from `index` on, where the session stands; False if what it was fed is not known.

        If it was fed all that is known, the last token goes out again: the server keeps the answer to it.
        """
        fed, known = index - self._start, len(self._known)
        if not 0 <= fed <= known:
            return False
        fed = min(fed, known - 1)
        stopped = known > self._prompt and self._known[-1] in self._request.stop
        self.finished = stopped or known == self._most
        self._request.first_index = self._start + fed
        self._request.prompt[:] = self._known[fed:]
        self._request.max_tokens = self._most - known
        self._request.request_id = str(uuid.uuid4())
        self._had = 0
        return True

    def _unreachable(self, why: str, reason: int = 0) -> ServerUnreachableError:
        calls = self._calls
        return ServerUnreachableError(
            f"no token from {calls.target} within {calls.timeout_s:g} s: {why}", reason
        )
