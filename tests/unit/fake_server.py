"""A server for the client's tests: running sums, exactly once, that misbehaves on command.

Model "sum" adds float32 pairs, model "count" int64 scalars, both per session. What a client must never do is asserted.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.carousel_pb2_grpc import add_CarouselServicer_to_server
from carousel.wire.frames import NUMPY, columns, pack, unpack
from tests.unit.fake_operations import FakeOperations, mirror
from tests.unit.fake_sums import CODES, WINDOW_CHUNKS, FakeSession, RefusedError, contract

LIMITS = pb.Limits(
    chunk_steps=100,
    window_chunks=WINDOW_CHUNKS,
    window_bytes=1 << 20,
    message_bytes=4 << 20,
    stream_chunks=4096,
)


class FakeServer(FakeOperations):
    def __init__(self) -> None:
        super().__init__()
        self.contracts = {"sum": contract(), "count": contract("int64", ()), "mirror": mirror()}
        self.sessions: dict[str, FakeSession] = {}
        self.closed: dict[str, int] = {}
        self.replays: dict[str, Any] = {}
        self.limits = LIMITS
        # What came.
        self.streams = 0
        self.frames: list[pb.StepFrame] = []
        self.attached: list[str] = []
        self.mistakes: list[AssertionError] = []
        """What a client must never send. Tests look here when they end."""
        # What to do to the client.
        self.refusals: dict[tuple[str, int], list[int]] = {}
        """Reasons with which to refuse a session's chunk, one each time it comes; the key is (id, first index)."""
        self.attach_refusals: list[int] = []
        self.call_errors: deque[tuple[grpc.StatusCode, int]] = deque()
        """Statuses for the next unary calls."""
        self.cuts: list[tuple[bool, grpc.StatusCode]] = []
        """Ends of the stream at the next frames: whether the frame is applied first, and the status."""
        self.answering = asyncio.Event()
        self.answering.set()
        self.backwards = False
        """Answer each chunk by itself, those of the last session first."""
        self.answer_twice = False

    @property
    def sent(self) -> int:
        """Chunks that came, however often."""
        return sum(len(frame.handles) for frame in self.frames)

    def open_session(self, name: str, model: str = "sum") -> FakeSession:
        port = self.contracts[model].inputs[0]
        self.sessions[name] = FakeSession(name, model, np.zeros(port.shape, NUMPY[port.dtype]))
        return self.sessions[name]

    def found(self, name: str) -> FakeSession:
        if name in self.closed:
            raise RefusedError(Reason.SESSION_CLOSED)
        if name not in self.sessions:
            raise RefusedError(Reason.SESSION_NOT_FOUND)
        return self.sessions[name]

    # ---- The stream ----

    async def Stream(self, request_iterator: AsyncIterator[pb.StreamRequest], context: Any) -> None:
        self.streams += 1
        responses: asyncio.Queue[pb.StreamResponse | grpc.StatusCode] = asyncio.Queue()
        reader = asyncio.create_task(self._read(request_iterator, responses))
        try:
            while isinstance(response := await responses.get(), pb.StreamResponse):
                await self.answering.wait()
                await context.write(response)
            await context.abort(response, "fake end of the stream")
        finally:
            reader.cancel()

    async def _read(
        self,
        requests: AsyncIterator[pb.StreamRequest],
        responses: "asyncio.Queue[pb.StreamResponse | grpc.StatusCode]",
    ) -> None:
        handles: list[str] = []
        async for request in requests:
            if request.HasField("attach"):
                responses.put_nowait(pb.StreamResponse(attached=self._attach(request.attach, handles)))
                continue
            self.frames.append(request.steps)
            applied, code = self.cuts.pop(0) if self.cuts else (True, None)
            answers = self._checked(request.steps, handles) if applied else []
            if code is not None:
                responses.put_nowait(code)
                return
            for frame in answers * (2 if self.answer_twice else 1):
                responses.put_nowait(pb.StreamResponse(answers=frame))

    def _checked(self, frame: pb.StepFrame, handles: list[str]) -> list[pb.AnswerFrame]:
        try:
            return self._steps(frame, handles)
        except AssertionError as mistake:
            self.mistakes.append(mistake)
            raise

    def _attach(self, attach: pb.Attach, handles: list[str]) -> pb.Attached:
        attached = pb.Attached(first_handle=len(handles))
        for position, name in enumerate(attach.sessions):
            self.attached.append(name)
            try:
                _refuse(self.attach_refusals)
                attached.next_indices.append(self.found(name).next_index)
                handles.append(name)
            except RefusedError as refused:
                attached.next_indices.append(0)
                attached.errors.append(refused.chunk_error(position))
                handles.append("unusable")
        return attached

    def _steps(self, frame: pb.StepFrame, handles: list[str]) -> list[pb.AnswerFrame]:
        taken = columns(frame)
        assert taken.first_indices is not None
        assert taken.acknowledged is not None
        names = [handles[handle] for handle in taken.handles]
        model = next((self.sessions[name].model for name in names if name in self.sessions), "sum")
        (inputs,) = unpack(self.contracts[model].inputs, frame.inputs, sum(taken.lengths))
        parts = np.split(inputs, np.cumsum(taken.lengths)[:-1])
        outcomes = []
        for name, first, acknowledged, part in zip(
            names, taken.first_indices, taken.acknowledged, parts, strict=True
        ):
            outcomes.append(self._step(name, first, acknowledged, part))
        chunks = list(zip(taken.handles, taken.first_indices, outcomes, strict=True))
        if not self.backwards:
            return [self._answer(model, chunks)]
        return [
            self._answer(model, [chunk]) for chunk in sorted(chunks, key=lambda chunk: (-chunk[0], chunk[1]))
        ]

    def _step(self, name: str, first: int, acknowledged: int, inputs: Any) -> Any:
        try:
            _refuse(self.refusals.get((name, first), []))
            session = self.found(name)
            session.acknowledge(acknowledged)
            return session.step(first, inputs)
        except RefusedError as refused:
            return refused

    def _answer(self, model: str, chunks: list[tuple[int, int, Any]]) -> pb.AnswerFrame:
        frame = pb.AnswerFrame(model=model, version="1")
        outputs = []
        for position, (handle, first, outcome) in enumerate(chunks):
            frame.handles.append(handle)
            frame.first_indices.append(first)
            if isinstance(outcome, RefusedError):
                frame.lengths.append(0)
                frame.errors.append(outcome.chunk_error(position))
            else:
                frame.lengths.append(len(outcome))
                outputs.append(outcome)
        if outputs:
            pack(self.contracts[model].outputs, [np.concatenate(outputs)], frame.outputs)
        return frame

    # ---- Unary calls ----

    async def _abort(self, context: Any, code: grpc.StatusCode, reason: int) -> None:
        await context.abort(code, f"fake {Reason.Name(reason)}", (("carousel-reason", Reason.Name(reason)),))

    async def enter(self, context: Any) -> None:
        if self.call_errors:
            await self._abort(context, *self.call_errors.popleft())

    async def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:
        await self.enter(context)
        return pb.ListModelsResponse(models=[*map(self.model, self.contracts), *self.failed])

    def model(self, name: str) -> pb.Model:
        return pb.Model(name=name, version="1", contract=self.contracts[name].to_json(), limits=self.limits)

    async def Open(self, request: pb.OpenRequest, context: Any) -> pb.OpenResponse:
        if request.request_id not in self.replays:
            if request.model not in self.contracts:
                await self._abort(context, grpc.StatusCode.NOT_FOUND, Reason.MODEL_NOT_FOUND)
            name = request.session or f"session-{len(self.sessions)}"
            if name in self.sessions:
                await self._abort(context, grpc.StatusCode.ALREADY_EXISTS, Reason.SESSION_EXISTS)
            session = self.open_session(name, request.model)
            self.closed.pop(name, None)
            if request.snapshot:
                self.put(session, request.snapshot)
            self.replays[request.request_id] = pb.OpenResponse(
                session=name, model=request.model, version="1", next_index=session.next_index
            )
        await self.enter(context)  # after the work: the answer is lost, not the call
        return self.replays[request.request_id]

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:
        await self.enter(context)
        try:
            session = self.found(request.session)
        except RefusedError as refused:
            await self._abort(context, CODES[refused.reason], refused.reason)
            raise
        return pb.DescribeResponse(
            session=session.id,
            model=session.model,
            version="1",
            next_index=session.next_index,
            kept_answers=len(session.kept),
            expires_in_s=60.0,
        )

    async def Close(self, request: pb.CloseRequest, context: Any) -> pb.CloseResponse:
        if request.request_id not in self.replays:
            try:
                session = self.found(request.session)
            except RefusedError as refused:
                await self._abort(context, CODES[refused.reason], refused.reason)
                raise
            del self.sessions[request.session]
            self.closed[request.session] = session.next_index
            self.replays[request.request_id] = pb.CloseResponse(steps=session.next_index)
        await self.enter(context)
        return self.replays[request.request_id]


def _refuse(reasons: list[int]) -> None:
    if reasons:
        raise RefusedError(reasons.pop(0))


@asynccontextmanager
async def listening(fake: FakeServer, port: int = 0) -> AsyncIterator[int]:
    """Serve on a port of 127.0.0.1; a stopped server ends its streams at once."""
    server = grpc.aio.server()
    add_CarouselServicer_to_server(fake, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)
