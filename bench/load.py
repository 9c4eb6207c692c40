"""One client process of a benchmark: streams of step frames against the service or an echo, as fast as answered or paced.

Started by `bench.run` with its plan as JSON on the command line; says `ready`, waits for a line, runs, and prints
what it measured as JSON.
"""

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import numpy as np
import uvloop

from carousel.wire.carousel_pb2 import Attach, OpenRequest, StepFrame, StreamRequest, StreamResponse, Tensor
from carousel.wire.carousel_pb2_grpc import CarouselStub

SERVICE = "/carousel.v1.Carousel/Stream"
ECHO = "/bench.Echo/Stream"
SETTLE_S = 0.5
"""The first part of a run, which is not counted."""
QUANTILES = 1001


@dataclass(frozen=True)
class Plan:
    """What one client process does."""

    port: int
    kind: str
    """`service`, `bytes` or `columns`."""
    streams: int
    sessions: int
    """A stream; a frame carries a chunk of each."""
    depth: int
    """Frames of a stream under way at once."""
    seconds: float
    input_size: int
    rate: float | None = None
    """Frames a second of this process; None: as fast as they are answered."""
    steps: int = 1
    """Of each session in a frame."""


@dataclass(frozen=True)
class Measured:
    """What one client process measured."""

    steps: int
    """Answered after it had settled."""
    all_steps: int
    cpu_seconds: float
    """For all of them."""
    latencies_ms: list[float]
    """Quantiles of the frames' latencies after it had settled, from the least to the greatest."""


class _Stream:
    """One stream: sends frames, counts answers."""

    def __init__(self, plan: Plan, call: Any, blob: bytes) -> None:
        self.plan = plan
        self.call = call
        self.inputs = [Tensor(name="x", data=blob * plan.steps * plan.sessions)]
        self.lengths = [plan.steps] * plan.sessions if plan.steps > 1 else []
        self.handles = list(range(plan.sessions))
        self.index = 0
        """Of the next step of every session."""
        self.sent: deque[float] = deque()
        self.answered = 0
        self.latencies: list[tuple[float, float]] = []
        """When a frame was answered, and how long it took."""

    async def run(self, end: float, interval: float | None) -> None:
        due = time.perf_counter() + (np.random.default_rng().uniform(0, interval) if interval else 0)
        while (now := time.perf_counter()) < end:
            if interval and now < due:
                await asyncio.sleep(due - now)
            await self._send(due if interval else now)
            due += interval or 0
            if len(self.sent) >= self.plan.depth:
                await self._receive()
        while self.sent:
            await self._receive()

    async def _send(self, due: float) -> None:
        columns = [self.index] * self.plan.sessions
        answered = [self.index - len(self.sent) * self.plan.steps] * self.plan.sessions
        frame = StepFrame(
            handles=self.handles,
            first_indices=columns,
            lengths=self.lengths,
            acknowledged=answered,
            inputs=self.inputs,
        )
        await self.call.write(StreamRequest(steps=frame).SerializeToString())
        self.sent.append(due)
        self.index += self.plan.steps

    async def _receive(self) -> None:
        message = await self.call.read()
        if self.plan.kind == "bytes":
            self.answered += len(StreamRequest.FromString(message).steps.handles)
        else:
            frame = StreamResponse.FromString(message).answers
            if frame.errors:
                raise RuntimeError(frame.errors[0].message)
            self.answered += len(frame.handles)
        now = time.perf_counter()
        while self.sent and self.answered >= self.plan.sessions:
            self.answered -= self.plan.sessions
            self.latencies.append((now, now - self.sent.popleft()))


async def run(plan: Plan) -> Measured:
    """Open everything, wait for the word, and run."""
    blob = np.random.default_rng(0).standard_normal(plan.input_size).astype("<f4").tobytes()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{plan.port}", options) as channel:
        streams = [await _open(plan, channel, blob) for _ in range(plan.streams)]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begin = time.perf_counter()
        end = begin + plan.seconds + SETTLE_S
        interval = plan.streams / plan.rate if plan.rate else None
        cpu = time.process_time()
        await asyncio.gather(*(stream.run(end, interval) for stream in streams))
        cpu = time.process_time() - cpu
        for stream in streams:
            await stream.call.done_writing()
    frames = [frame for stream in streams for frame in stream.latencies]
    settled = [took * 1000 for moment, took in frames if begin + SETTLE_S <= moment < end]
    quantiles = np.quantile(settled, np.linspace(0, 1, QUANTILES)).round(4).tolist()
    steps = plan.sessions * plan.steps
    return Measured(len(settled) * steps, len(frames) * steps, cpu, quantiles)


async def _open(plan: Plan, channel: grpc.aio.Channel, blob: bytes) -> _Stream:
    call: Any = channel.stream_stream(SERVICE if plan.kind == "service" else ECHO)()
    stream = _Stream(plan, call, blob)
    if plan.kind == "service":
        stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
        opened = [await stub.Open(OpenRequest(model="bench")) for _ in range(plan.sessions)]
        attach = Attach(sessions=[one.session for one in opened])
        await call.write(StreamRequest(attach=attach).SerializeToString())
        await call.read()
    return stream


def main() -> None:
    """Run the plan of the command line."""
    print(json.dumps(asdict(uvloop.run(run(Plan(**json.loads(sys.argv[1])))))))


if __name__ == "__main__":
    main()
