"""What the fake server does with sessions beside stepping them: copies, snapshots, lists, loops, models."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import numpy as np

from carousel.contract import Contract, Port, Signature, layout_hash
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.carousel_pb2_grpc import CarouselServicer
from carousel.wire.frames import pack, unpack
from tests.unit.fake_sums import CODES, FakeSession, RefusedError


def mirror() -> Contract:
    """A whole-input model: y = -x."""
    ports = [(Port(name=name, dtype="float32", shape=(2,), axes=("batch", "time")),) for name in ("x", "y")]
    return Contract(
        format=3,
        kind="whole",
        task="fake",
        recurrence="mirror",
        inputs=ports[0],
        outputs=ports[1],
        lengths="lengths",
        planes=(),
        segments=(),
        invariant=True,
        signature=Signature(layout=layout_hash("mirror", *ports, (), ()), lineage="fake"),
    )


def drawn(total: int, seed: int, index: int) -> int:
    """The token that follows a running sum: the fake's temperature, as it were."""
    return (7 * total + seed + 3 * index) % 10


class Cut(NamedTuple):
    """An end of a generation before its time."""

    told: int
    """After so many tokens; a server that goes down tells all but one of those that it has made."""
    more: int = 0
    """Tokens that are made and not told."""
    restarts: bool = False
    """Whether the server forgets what it was asked; it keeps the answer to the last chunk."""


NEVER = Cut(1 << 62)


class FakeOperations(CarouselServicer):
    """Expects `FakeServer` around it."""

    sessions: dict[str, FakeSession]
    replays: dict[str, Any]

    def __init__(self) -> None:
        self.calls: list[Any] = []
        """Requests that came, repeated ones included."""
        self.page_sessions = 1000
        self.generation_cuts: list[Cut] = []
        """Ends of the next calls of `Generate`."""
        self.ends_well = True
        """Whether the last token comes with the end of the call."""
        self.telling = asyncio.Event()
        self.telling.set()
        self.failed = [pb.Model(name="sum", version="2", state=pb.Model.FAILED, error="it has no weights")]

    def found(self, name: str) -> FakeSession:
        raise NotImplementedError

    async def enter(self, context: Any) -> None:
        raise NotImplementedError

    def open_session(self, name: str, model: str = "sum") -> FakeSession:
        raise NotImplementedError

    async def _do(self, request: Any, context: Any, work: Any) -> Any:
        """Do what a request asks for, once for each request id; its answer may get lost."""
        self.calls.append(request)
        key = getattr(request, "request_id", "") or f"call {len(self.calls)}"
        if key not in self.replays:
            try:
                self.replays[key] = work(request)
            except RefusedError as refused:
                trailing = [("carousel-reason", Reason.Name(refused.reason))]
                trailing += [("carousel-expected-index", str(refused.expected_index))]
                await context.abort(CODES[refused.reason], str(refused), tuple(trailing))
        await self.enter(context)
        return self.replays[key]

    # ---- Copies ----

    async def Fork(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._fork)

    def _fork(self, request: pb.ForkRequest) -> pb.ForkResponse:
        source = self.found(request.session)
        names = list(request.copies) or [f"session-{len(self.sessions) + k}" for k in range(request.count)]
        if self.sessions.keys() & set(names):
            raise RefusedError(Reason.SESSION_EXISTS)
        for name in names:
            copy = self.open_session(name, source.model)
            copy.total, copy.next_index = source.total.copy(), source.next_index
        return pb.ForkResponse(copies=names, next_index=source.next_index)

    async def Snapshot(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._snapshot)

    def _snapshot(self, request: pb.SnapshotRequest) -> pb.SnapshotResponse:
        session = self.found(request.session)
        blob = f"{session.model} {session.next_index} ".encode() + session.total.tobytes()
        return pb.SnapshotResponse(snapshot=blob, next_index=session.next_index)

    def put(self, session: FakeSession, snapshot: bytes) -> None:
        """Make a session what a snapshot says."""
        model, _, rest = snapshot.partition(b" ")
        index, _, total = rest.partition(b" ")
        if not index.isdigit():
            raise RefusedError(Reason.SNAPSHOT_REFUSED)
        if model.decode() != session.model:
            raise RefusedError(Reason.MODEL_DIFFERS)
        session.total = np.frombuffer(total, session.total.dtype).reshape(session.total.shape)
        session.next_index = int(index)
        session.kept = {}

    async def Restore(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._restore)

    def _restore(self, request: pb.RestoreRequest) -> pb.RestoreResponse:
        session = self.found(request.session)
        self.put(session, request.snapshot)
        return pb.RestoreResponse(next_index=session.next_index)

    # ---- Lists ----

    async def Touch(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._touch)

    def _touch(self, request: pb.TouchRequest) -> pb.TouchResponse:
        self.found(request.session)
        return pb.TouchResponse(expires_in_s=60.0)

    async def ListSessions(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._list)

    def _list(self, request: pb.ListSessionsRequest) -> pb.ListSessionsResponse:
        names = [name for name in self.sessions if name.startswith(request.prefix)]
        names = [name for name in names if request.model in ("", self.sessions[name].model)]
        start = int(request.page_token or 0)
        end = start + min(request.page_size, self.page_sessions)
        told = [
            pb.DescribeResponse(
                session=name, model=self.sessions[name].model, next_index=self.sessions[name].next_index
            )
            for name in names[start:end]
        ]
        return pb.ListSessionsResponse(sessions=told, next_page_token=str(end) if end < len(names) else "")

    # ---- Loops ----

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        start = request.first_index + len(request.prompt)
        made = await self._do(request, context, self._generation)
        told, more, restarts = self.generation_cuts.pop(0) if self.generation_cuts else NEVER
        await self.telling.wait()
        for k in range(request.max_tokens):
            if k >= told and (not restarts or k >= len(made) - 1):
                while len(made) < min(k + more, request.max_tokens):
                    self._make(request, made)
                if restarts:
                    self.replays.clear()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "fake end of the call")
            if k == len(made):
                self._make(request, made)
            yield pb.GenerateResponse(tokens=[made[k]], first_index=start + k)
            if made[k] in request.stop:
                break
        if not self.ends_well:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "fake end of the call")

    def _generation(self, request: pb.GenerateRequest) -> list[int]:
        session = self.found(request.session)
        if not request.prompt or not request.max_tokens:
            raise RefusedError(Reason.INVALID_INPUT)
        if session.fed != (request.first_index, list(request.prompt)):  # else its answer is kept
            if request.first_index != session.next_index:
                raise RefusedError(Reason.INDEX_UNEXPECTED, session.next_index)
            self._feed(session, list(request.prompt))
        return [drawn(int(session.total), request.seed, session.next_index)]

    def _make(self, request: pb.GenerateRequest, made: list[int]) -> None:
        session = self.found(request.session)
        self._feed(session, made[-1:])
        made.append(drawn(int(session.total), request.seed, session.next_index))

    def _feed(self, session: FakeSession, tokens: list[int]) -> None:
        session.fed = session.next_index, tokens
        session.total = session.total + sum(tokens)
        session.next_index += len(tokens)

    async def Forecast(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._forecast)

    def _forecast(self, request: pb.ForecastRequest) -> pb.ForecastResponse:
        session = self.found(request.session)
        ports = self.contracts[session.model].inputs  # type: ignore[attr-defined]
        response = pb.ForecastResponse(next_index=session.next_index, model=session.model, version="1")
        for scenario in request.scenarios:
            (inputs,) = unpack(ports, scenario.inputs, request.steps)
            outputs = session.total + np.cumsum(inputs, axis=0, dtype=inputs.dtype)
            found = self.contracts[session.model].outputs  # type: ignore[attr-defined]
            pack(found, [outputs], response.scenarios.add().outputs)
        return response

    # ---- Models ----

    async def Infer(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._infer)

    def _infer(self, request: pb.InferRequest) -> pb.InferResponse:
        x = request.inputs[0]
        y = -np.frombuffer(x.data, "<f4")
        return pb.InferResponse(
            outputs=[pb.Array(name="y", shape=x.shape, data=y.tobytes())], model=request.model, version="1"
        )

    async def LoadModel(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._load)

    def _load(self, request: pb.LoadModelRequest) -> pb.LoadModelResponse:
        if request.version == "2":
            raise RefusedError(Reason.MODEL_FAILED)
        return pb.LoadModelResponse(model=self.model(request.name), took_over=True)

    async def UnloadModel(self, request: Any, context: Any) -> Any:
        return await self._do(request, context, self._unload)

    def _unload(self, request: pb.UnloadModelRequest) -> pb.UnloadModelResponse:
        return pb.UnloadModelResponse(
            sessions=sum(session.model == request.name for session in self.sessions.values())
        )

    def model(self, name: str) -> pb.Model:
        raise NotImplementedError
