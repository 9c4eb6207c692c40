"""Calls with a request id: each is made once, and whoever repeats it gets its answer, or waits for it with the first."""

import asyncio
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import structlog
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import Message

from carousel.wire import carousel_pb2 as pb
from service.errors import ServiceError
from service.identity import caller
from service.replays import Replays, check_same

M = TypeVar("M", bound=Message)

_log = structlog.get_logger(__name__)

Request = pb.OpenRequest | pb.ForkRequest | pb.RestoreRequest | pb.CloseRequest


class Once(Generic[M]):
    """Calls of one kind.

    Args:
        answer: Makes an empty answer.
        names: How many sessions an answer names.
    """

    def __init__(self, answer: type[M], names: Callable[[M], int] = lambda _: 1) -> None:
        self._answer = answer
        self._names = names
        self._replays = Replays[M]()
        self._under_way: dict[tuple[str, str], tuple[bytes, asyncio.Task[M]]] = {}

    async def call(
        self,
        request: Request,
        clock: Callable[[], float],
        make: Callable[[], Coroutine[Any, Any, M]],
    ) -> M:
        """Answer a call. What has begun ends, and is remembered, though its caller may leave.

        Raises:
            ContentDiffersError: the request id is another call's.
            ServiceError: as `make`; nothing is remembered then.
        """
        if not request.request_id:
            return await make()
        digest, key = _digest(request), (caller.get().owner, request.request_id)
        if (made := self._replays.find(*key, digest, clock())) is not None:
            return made
        if key not in self._under_way:
            task = asyncio.create_task(self._make(key, digest, clock, make))
            task.add_done_callback(let_go)
            self._under_way[key] = digest, task
        before, task = self._under_way[key]
        check_same(request.request_id, before, digest)
        try:
            return await asyncio.shield(task)
        except ServiceError as error:
            raise error.again() from None

    async def _make(
        self,
        key: tuple[str, str],
        digest: bytes,
        clock: Callable[[], float],
        make: Callable[[], Coroutine[Any, Any, M]],
    ) -> M:
        try:
            answer = await make()
            self._replays.keep(*key, digest, answer, clock(), self._names(answer))
            return answer
        finally:
            del self._under_way[key]

    def dump(self, now: float) -> list[list[Any]]:
        """All answers as JSON."""
        return self._replays.dump(MessageToJson, now)

    def load(self, dump: list[list[Any]], now: float) -> None:
        """Put back what `dump` gave."""
        self._replays.load(dump, lambda text: Parse(text, self._answer()), now)


def let_go(task: "asyncio.Task[Any]") -> None:
    """A refusal that nobody waits for any more is no error of the server's; asyncio would log it as one."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ServiceError):
        _log.error("call_failed", exc_info=error)


def _digest(request: Request) -> bytes:
    """Enough to know a call by; the request itself may be as large as a message."""
    return blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()
