"""One bidirectional stream: frames in, answers out, in order per session.

What a client does not read is bounded: the stream takes no further frame while too many of its chunks, or too many
bytes of their answers, have not been written. The engine never waits for a stream.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

from carousel.wire.carousel_pb2 import Attach, Attached, StepFrame, StreamResponse
from carousel.wire.frames import FrameError, columns
from service.engine import Engine
from service.errors import InvalidInputError, ServiceError
from service.frame import FrameCaller, Item, Refusal, frames, message
from service.group import blobs_of
from service.handles import Handles
from service.identity import Identity
from service.metrics import Metrics
from service.status import reason_name

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, StreamResponse]

STREAM_CHUNKS = 1024
"""Chunks of one stream between reading and writing, and of one frame."""
STREAM_BYTES = 32 << 20
"""Bytes of inputs or answers of one stream between reading and writing, unless one frame alone makes more."""
ALL_STREAMS_BYTES = 1 << 30
"""The same of all streams together; beyond it, each still has one frame under way."""


class StreamCall:
    """One call of `Stream`, from its first frame to its end."""

    def __init__(self, engine: Engine, metrics: Metrics, identity: Identity, context: "Context") -> None:
        self._engine = engine
        self._metrics = metrics
        self._context = context
        self._handles = Handles(engine, identity.owner)
        self._account = identity.account
        self._waiting: dict[FrameCaller, None] = {}
        self._attached: deque[Attached] = deque()
        self._out: list[Item] = []
        """What is to be written,"""
        self._out_since = 0.0
        """and since when the first of it is."""
        self._loop = asyncio.get_running_loop()
        self._writer_sleeps: asyncio.Future[None] | None = None
        self._reader_sleeps: asyncio.Future[None] | None = None
        self._ending = False
        self._open_chunks = 0
        self._open_bytes = 0

    async def run(self) -> None:
        """Serve the stream until its client ends it and has been sent every answer.

        Raises:
            InvalidInputError: a frame that cannot be taken apart.
        """
        writer = asyncio.create_task(self._write())
        reader = asyncio.create_task(self._read())
        try:
            done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            self._ending = True
            self._wake_writer()
            if writer not in done:
                # gRPC can send no status while a write is under way: the call would hang for ever.
                await writer
            for task in done:
                task.result()
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._engine.unread_bytes -= self._open_bytes
            # The last frame first: a chunk that leaves takes the later ones of its session with it.
            for caller in reversed(list(self._waiting)):
                self._account.queued -= caller.open
                self._engine.leave(caller)

    def send(self, item: Item) -> None:
        """Chunks have their outcome; it is written when the client reads."""
        caller, outcome, chunks, _ = item
        caller.open -= chunks
        self._account.queued -= chunks
        if not caller.open:
            self._waiting.pop(caller, None)
            caller.waits.clear()  # cohorts know their callers: a circle would wait for the garbage collector
        if isinstance(outcome, Refusal):
            self._metrics.refused.labels(reason_name(outcome.error)).inc()
        if not self._out:
            self._out_since = self._engine.clock()
        self._out.append(item)
        self._wake_writer()

    def why_not(self, handle: int) -> ServiceError:
        """Why the session with this handle is no more."""
        return self._handles.why_not(handle)

    # -- reading --------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            if isinstance(request, ServiceError):
                raise request
            match request.WhichOneof("kind"):
                case "steps":
                    self._take(request.steps)
                case "attach":
                    self._attach(request.attach)
                case _:
                    raise InvalidInputError("frame: expected attach or steps, got neither")
            while self._open_chunks >= STREAM_CHUNKS or self._too_much_unread():
                await self._some_written()
        while self._open_chunks:
            await self._some_written()

    def _too_much_unread(self) -> bool:
        if self._open_bytes >= STREAM_BYTES:
            return True
        return self._open_bytes > 0 and self._engine.unread_bytes >= ALL_STREAMS_BYTES

    async def _some_written(self) -> None:
        self._reader_sleeps = self._loop.create_future()
        await self._reader_sleeps

    def _attach(self, attach: Attach) -> None:
        if len(attach.sessions) > STREAM_CHUNKS:
            raise InvalidInputError(
                f"attach: expected at most {STREAM_CHUNKS} sessions at once, got {len(attach.sessions)}"
            )
        self._attached.append(self._handles.attach(attach))
        self._open_chunks += 1 + len(attach.sessions)
        self._wake_writer()

    def _take(self, frame: StepFrame) -> None:
        if len(frame.handles) > STREAM_CHUNKS:
            raise InvalidInputError(
                f"frame: expected at most {STREAM_CHUNKS} chunks, got {len(frame.handles)}"
            )
        try:
            handles, firsts, lengths, acknowledged = columns(frame)
        except FrameError as error:
            raise InvalidInputError(str(error)) from error
        slots, serials, model = self._handles.look_up(handles)
        steps = sum(lengths)
        blobs = [] if model is None else blobs_of(model.contract.inputs, frame.inputs, steps)
        caller = FrameCaller(self, model, handles, firsts, lengths)
        self._waiting[caller] = None
        self._open_chunks += len(handles)
        self._account.queued += len(handles)
        if model is None:
            for position in range(len(handles)):
                caller.refused(position, caller.gone(position))
        else:
            self._open_bytes += steps * model.held_bytes
            self._engine.unread_bytes += steps * model.held_bytes
            if self._account.quota is not None and not self._pays(caller, steps):
                return
            self._engine.offer(model, caller, slots, serials, firsts, lengths, acknowledged, blobs)

    def _pays(self, caller: FrameCaller, steps: int) -> bool:
        """Whether the owner's quota has room for a frame; otherwise all of it is refused."""
        refusal = self._account.check(steps, self._engine.clock())
        if refusal is not None:
            for position in range(len(caller.handles)):
                caller.refused(position, refusal)
        return refusal is None

    # -- writing --------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while not self._ending:
            if self._attached:
                answer = self._attached.popleft()
                await self._context.write(StreamResponse(attached=answer))
                self._written(1 + len(answer.next_indices), 0)
            elif self._out:
                ready, self._out = self._out, []
                await self._write_answers(ready, self._out_since)
            else:
                self._writer_sleeps = self._loop.create_future()
                await self._writer_sleeps

    async def _write_answers(self, ready: list[Item], since: float) -> None:
        for part in frames(ready):
            if self._ending:
                return
            await self._context.write(message(part))
            chunks, model = sum([item.chunks for item in part]), part[0].caller.model
            if model is None:
                self._written(chunks, 0)
            else:
                steps = sum([item.budget_bytes for item in part]) // model.step_bytes
                self._written(chunks, steps * model.held_bytes)
                waited = self._engine.clock() - since
                self._engine.metrics_of(model).answer_seconds.observe(waited, chunks)

    def _written(self, chunks: int, held_bytes: int) -> None:
        self._open_chunks -= chunks
        self._open_bytes -= held_bytes
        self._engine.unread_bytes -= held_bytes
        if self._reader_sleeps is not None and not self._reader_sleeps.done():
            self._reader_sleeps.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer_sleeps is not None and not self._writer_sleeps.done():
            self._writer_sleeps.set_result(None)
