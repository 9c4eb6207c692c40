"""One bidirectional stream: frames in, answers out, in order per session.

What a client does not read is bounded: the stream takes no further frame while too many of its chunks, or too many
bytes of their answers, have not been written. The engine never waits for a stream.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from carousel.wire.carousel_pb2 import AnswerFrame, Attach, Attached, StepFrame, StreamResponse
from carousel.wire.frames import FrameError, columns
from service.decode import decode_steps
from service.engine import Engine
from service.errors import InvalidInputError, ServiceError
from service.metrics import Metrics
from service.repository import ServedModel
from service.session import Answer, Chunk, Session, Steps
from service.status import chunk_error, reason_name

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, StreamResponse]

STREAM_CHUNKS = 1024
"""Chunks of one stream between reading and writing, and of one frame."""
STREAM_BYTES = 32 << 20
"""Bytes of answers of one stream between reading and writing, unless one frame alone makes more."""
STREAM_HANDLES = 1 << 20
FRAME_BYTES = 1 << 20
"""An answer frame of this size is full."""
NOT_ATTACHED = InvalidInputError("frame: no session of it is attached")


@dataclass(eq=False, slots=True)
class _Caller:
    """Waits for one chunk on behalf of a stream."""

    stream: "StreamCall"
    model: ServedModel | None
    handle: int
    first: int
    budget_bytes: int
    """What its answer takes, if there is one."""
    outcome: Answer | ServiceError | None = None

    def __call__(self, outcome: Answer | ServiceError) -> None:
        self.outcome = outcome
        self.stream.answered(self)


class StreamCall:
    """One call of `Stream`, from its first frame to its end."""

    def __init__(self, engine: Engine, metrics: Metrics, owner: str, context: "Context") -> None:
        self._engine = engine
        self._metrics = metrics
        self._owner = owner
        self._context = context
        self._handles: list[Session | ServiceError] = []
        self._waiting: dict[_Caller, Chunk] = {}
        self._out: list[_Caller | Attached] = []
        self._out_ready = asyncio.Event()
        self._written = asyncio.Event()
        self._ending = False
        self._open_chunks = 0
        self._open_bytes = 0

    async def run(self) -> None:
        """Serve the stream until its client ends it and has been sent every answer.

        Raises:
            InvalidInputError: a frame that cannot be taken apart.
        """
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            self._ending = True
            self._out_ready.set()
            if writer not in done:
                # gRPC can send no status while a write is under way: the call would hang for ever.
                await writer
            for task in done:
                task.result()
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            # The last chunk first: a chunk that leaves takes the later ones of its session with it.
            for caller, chunk in reversed(list(self._waiting.items())):
                self._engine.leave(chunk, caller)

    def answered(self, caller: _Caller) -> None:
        """A chunk has its outcome; it will be written when the client reads."""
        self._waiting.pop(caller, None)
        if isinstance(caller.outcome, ServiceError):
            self._metrics.refused.labels(reason_name(caller.outcome)).inc()
        self._send(caller)

    # -- reading --------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            match request.WhichOneof("kind"):
                case "attach":
                    self._attach(request.attach)
                case "steps":
                    self._take(request.steps)
                case _:
                    raise InvalidInputError("frame: expected attach or steps, got neither")
            while self._open_chunks >= STREAM_CHUNKS or self._open_bytes >= STREAM_BYTES:
                await self._some_written()
        while self._open_chunks:
            await self._some_written()

    async def _some_written(self) -> None:
        self._written.clear()
        await self._written.wait()

    def _attach(self, attach: Attach) -> None:
        if len(attach.sessions) > STREAM_CHUNKS:
            raise InvalidInputError(
                f"attach: expected at most {STREAM_CHUNKS} sessions at once, got {len(attach.sessions)}"
            )
        if len(self._handles) + len(attach.sessions) > STREAM_HANDLES:
            raise InvalidInputError(
                f"attach: expected at most {STREAM_HANDLES} handles a stream; open a new stream"
            )
        answer = Attached(first_handle=len(self._handles))
        for position, session_id in enumerate(attach.sessions):
            try:
                session = self._engine.table.get(self._owner, session_id, self._engine.clock())
            except ServiceError as error:
                self._handles.append(error.again())
                answer.next_indices.append(0)
                answer.errors.append(chunk_error(position, error))
            else:
                self._handles.append(session)
                answer.next_indices.append(session.next_index)
        self._open_chunks += 1 + len(attach.sessions)
        self._send(answer)

    def _take(self, frame: StepFrame) -> None:
        count = len(frame.handles)
        if count > STREAM_CHUNKS:
            raise InvalidInputError(f"frame: expected at most {STREAM_CHUNKS} chunks, got {count}")
        try:
            handles, first_indices, lengths, acknowledged = columns(frame)
        except FrameError as error:
            raise InvalidInputError(str(error)) from error
        sessions = [self._session(handle) for handle in handles]
        model = self._model(sessions)
        firsts: Sequence[int | None] = first_indices or [None] * count
        chunks: Sequence[Steps | ServiceError]
        if model is None:
            chunks = [NOT_ATTACHED] * count
        else:
            chunks = decode_steps(model.contract, frame.inputs, firsts, lengths, acknowledged or [0] * count)
        for session, handle, first, length, chunk in zip(
            sessions, handles, firsts, lengths, chunks, strict=True
        ):
            budget_bytes = length * model.step_bytes if model is not None else 0
            caller = _Caller(self, model, handle, first or 0, budget_bytes)
            self._open_chunks += 1
            self._open_bytes += budget_bytes
            self._submit(session, chunk, caller)

    def _submit(self, session: Session | ServiceError, steps: Steps | ServiceError, caller: _Caller) -> None:
        if isinstance(session, ServiceError):
            return caller(session.again())
        if not isinstance(steps, Steps):
            return caller(steps)
        if steps.first is None:
            caller.first = session.tail
        try:
            chunk = self._engine.submit(session, steps, caller)
        except ServiceError as error:
            return caller(error.again())
        if chunk is not None:
            self._waiting[caller] = chunk
        return None

    def _session(self, handle: int) -> Session | ServiceError:
        if handle < len(self._handles):
            found = self._handles[handle]
            if isinstance(found, Session) and found.gone is not None:
                self._handles[handle] = found = found.gone.again()  # a stream keeps no dead session in memory
            return found
        return InvalidInputError(
            f"handle: expected one of the {len(self._handles)} attached on this stream, got {handle}"
        )

    def _model(self, sessions: Sequence[Session | ServiceError]) -> ServedModel | None:
        keys = {session.model for session in sessions if isinstance(session, Session)}
        if len(keys) > 1:
            raise InvalidInputError(f"frame: expected sessions of one model, got {', '.join(sorted(keys))}")
        return self._engine.models[keys.pop()] if keys else None

    # -- writing --------------------------------------------------------------------------------------------------

    def _send(self, item: "_Caller | Attached") -> None:
        self._out.append(item)
        self._out_ready.set()

    async def _write(self) -> None:
        while not self._ending:
            await self._out_ready.wait()
            self._out_ready.clear()
            ready, self._out = self._out, []
            for item in _frames(ready):
                if self._ending:
                    return
                if isinstance(item, Attached):
                    await self._context.write(StreamResponse(attached=item))
                    self._open_chunks -= 1 + len(item.next_indices)
                else:
                    await self._context.write(StreamResponse(answers=_answer_frame(item)))
                    self._open_chunks -= len(item)
                    self._open_bytes -= sum(caller.budget_bytes for caller in item)
                self._written.set()


def _frames(ready: list[_Caller | Attached]) -> Iterator[list[_Caller] | Attached]:
    """Gather answers of one model into frames of about FRAME_BYTES, keeping the order."""
    frame: list[_Caller] = []
    size = 0
    for item in ready:
        if frame and (isinstance(item, Attached) or item.model is not frame[0].model or size >= FRAME_BYTES):
            yield frame
            frame, size = [], 0
        if isinstance(item, Attached):
            yield item
        else:
            frame.append(item)
            size += item.budget_bytes
    if frame:
        yield frame


def _answer_frame(callers: list[_Caller]) -> AnswerFrame:
    model = callers[0].model
    answers = [caller.outcome for caller in callers if isinstance(caller.outcome, Answer)]
    frame = AnswerFrame(
        handles=[caller.handle for caller in callers],
        first_indices=[caller.first for caller in callers],
        lengths=[caller.outcome.length if isinstance(caller.outcome, Answer) else 0 for caller in callers],
        errors=[
            chunk_error(position, caller.outcome)
            for position, caller in enumerate(callers)
            if isinstance(caller.outcome, ServiceError)
        ],
    )
    if model is not None:
        frame.model, frame.version = model.name, model.version
    if model is not None and answers:
        for port, blobs in zip(
            model.contract.outputs, zip(*(answer.outputs for answer in answers), strict=True), strict=True
        ):
            frame.outputs.add(name=port.name, data=b"".join(blobs))
    return frame
