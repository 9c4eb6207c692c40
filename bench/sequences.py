"""One client process of a benchmark: whole sequences of mixed length, back to back or arriving at random.

Started by `bench.mixed_lengths` with its plan as JSON on the command line; says `ready`, waits for a line, runs, holds
some of the answers against a direct run of the model, prints what it measured as JSON, and closes its sessions.
Axes: T steps, I inputs.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import uvloop

from bench.load import QUANTILES, SERVICE, SETTLE_S
from bench.padded import open_model
from bench.peers.check import TOLERANCE
from carousel.errors import CarouselError
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub

SHORTEST, LONGEST = 10, 500
POOL_STEPS = 2 * LONGEST
"""Steps that all sequences are cut from."""
CHECKED = 4
"""Sequences of each stream that are held against a direct run."""


@dataclass(frozen=True)
class Plan:
    """What the client process does."""

    port: int
    kind: str
    """`service` or `padded`."""
    streams: int
    sessions: int
    """A stream; each has one sequence under way at most."""
    seconds: float
    model: str
    """The file, for checking."""
    seed: int
    """Of lengths and arrivals."""
    rate: float | None = None
    """Sequences a second that arrive, as a Poisson process; None: every session gets its next one at once."""


@dataclass(frozen=True)
class Measured:
    """What the client process measured."""

    sequences: int
    """Answered after it had settled."""
    steps: int
    """Theirs, without padding."""
    all_steps: int
    cpu_seconds: float
    """For all of them."""
    latencies_ms: list[float]
    """Quantiles, from the least to the greatest, of the sequences that arrived after it had settled."""
    checked: int
    """Sequences whose numbers were those of a direct run."""


class Sent(NamedTuple):
    """A sequence on its way."""

    arrived: float
    start: int
    """Of its steps in the pool."""
    steps: int


class Answered(NamedTuple):
    """A sequence that came back."""

    sent: Sent
    moment: float


class _Stream:
    """Some sessions on one stream, and the sequences that they are given.

    Args:
        call: The gRPC call; the sessions are attached.
        sessions: How many.
        pool: What sequences are cut from, `[T, I]`.
    """

    def __init__(self, call: Any, sessions: int, pool: np.ndarray) -> None:
        self.answered: list[Answered] = []
        self.first: list[tuple[Sent, bytes]] = []
        """Sequences of sessions that had made no step, and their answers."""
        self._call = call
        self._pool, self._step_bytes = pool.tobytes(), pool[0].nbytes
        self._out: asyncio.Queue[int | None] = asyncio.Queue()
        self._under_way: dict[int, Sent] = {}
        self._made = [0] * sessions
        """Steps of each session."""

    def send(self, session: int, sent: Sent) -> None:
        """Queue a sequence for a session that has none under way."""
        self._under_way[session] = sent
        self._out.put_nowait(session)

    def end(self) -> None:
        """Send nothing more."""
        self._out.put_nowait(None)

    async def write(self) -> None:
        """Write what is queued, until the end."""
        while (session := await self._out.get()) is not None:
            _, start, steps = self._under_way[session]
            made = [self._made[session]]
            frame = pb.StepFrame(handles=[session], first_indices=made, lengths=[steps], acknowledged=made)
            blob = self._pool[start * self._step_bytes : (start + steps) * self._step_bytes]
            frame.inputs.add(name="x", data=blob)
            await self._call.write(pb.StreamRequest(steps=frame).SerializeToString())
        await self._call.done_writing()

    async def read(self, free: "asyncio.Queue[Place]") -> None:
        """Take what comes, and tell which sessions are free, until the stream ends."""
        while (message := await self._call.read()) is not grpc.aio.EOF:
            frame, now = pb.StreamResponse.FromString(message).answers, time.perf_counter()
            if frame.errors:
                raise CarouselError(frame.errors[0].message)
            blob, cuts = memoryview(frame.outputs[0].data), [0, *accumulate(frame.lengths)]
            size = len(blob) // cuts[-1]
            for session, (start, end) in zip(frame.handles, pairwise(cuts), strict=True):
                self._take(session, end - start, blob[start * size : end * size], now)
                free.put_nowait((self, session))

    def _take(self, session: int, steps: int, blob: memoryview, now: float) -> None:
        sent = self._under_way.pop(session)
        if steps != sent.steps:
            raise CarouselError(f"a sequence of {sent.steps} steps got {steps} answers")
        if not self._made[session] and len(self.first) < CHECKED:
            self.first.append((sent, bytes(blob)))
        self._made[session] += steps
        self.answered.append(Answered(sent, now))


Place = tuple[_Stream, int]
"""A session: its stream and its handle there."""


async def run(plan: Plan) -> None:
    """Open everything, wait for the word, run, check, close and tell."""
    model = open_model(Path(plan.model))
    size = next(port.shape[-1] for port in model.get_inputs() if port.name == "x")
    pool = np.random.default_rng(0).standard_normal((POOL_STEPS, size)).astype("<f4")
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{plan.port}", options) as channel:
        calls: list[Any] = [channel.stream_stream(SERVICE)() for _ in range(plan.streams)]
        opened = [await _open(channel, call, plan.sessions) for call in calls if plan.kind == "service"]
        streams = [_Stream(call, plan.sessions, pool) for call in calls]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begin, cpu = time.perf_counter(), time.process_time()
        await _run(streams, plan, begin + SETTLE_S + plan.seconds)
        cpu = time.process_time() - cpu
        checked = sum(check(model, pool, sent, blob) for stream in streams for sent, blob in stream.first)
        answered = [one for stream in streams for one in stream.answered]
        stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
        for session in chain.from_iterable(opened):  # with the answers that are kept for it
            await stub.Close(pb.CloseRequest(session=session))
        measured = _measured(answered, begin, plan.seconds, cpu, checked)
        print(json.dumps(asdict(measured)), flush=True)  # last: whoever reads it ends this process


async def _open(channel: grpc.aio.Channel, call: Any, sessions: int) -> list[str]:
    stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
    opened = [(await stub.Open(pb.OpenRequest(model="bench"))).session for _ in range(sessions)]
    await call.write(pb.StreamRequest(attach=pb.Attach(sessions=opened)).SerializeToString())
    await call.read()
    return opened


async def _run(streams: Sequence[_Stream], plan: Plan, end: float) -> None:
    free: asyncio.Queue[Place] = asyncio.Queue()
    for session in range(plan.sessions):
        for stream in streams:
            free.put_nowait((stream, session))
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.write())
            group.create_task(stream.read(free))
        await _feed(free, plan, end)
        for _ in range(plan.streams * plan.sessions):
            await free.get()
        for stream in streams:
            stream.end()


async def _feed(free: "asyncio.Queue[Place]", plan: Plan, end: float) -> None:
    """Give sequences to free sessions, until the end."""
    due = time.perf_counter()
    for gap, start, steps in sequences(plan):
        due += gap
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        stream, session = place = await free.get()
        if (now := time.perf_counter()) >= end:
            free.put_nowait(place)
            return
        stream.send(session, Sent(due if plan.rate else now, start, steps))


def sequences(plan: Plan) -> Iterator[tuple[float, int, int]]:
    """Without end: the seconds since the one before, where it starts in the pool, and its steps."""
    random = np.random.default_rng(plan.seed)
    while True:
        gap = random.exponential(1 / plan.rate) if plan.rate else 0.0
        steps = int(random.integers(SHORTEST, LONGEST, endpoint=True))
        yield gap, int(random.integers(POOL_STEPS - steps, endpoint=True)), steps


def check(model: Any, pool: np.ndarray, sent: Sent, blob: bytes) -> bool:
    """Hold an answer against a direct run of its sequence alone, from zeros.

    Raises:
        CarouselError: It is another.
    """
    state_size = next(port.shape[-1] for port in model.get_inputs() if port.name == "state")
    feeds = {
        "x": pool[None, sent.start : sent.start + sent.steps],
        "lengths": np.array([sent.steps], np.int32),
        "state": np.zeros((1, state_size), np.float32),
    }
    (expected,) = model.run(["y"], feeds)
    off = np.abs(np.frombuffer(blob, "<f4").reshape(expected.shape) - expected).max()
    if not off <= TOLERANCE:  # nor for a NaN
        raise CarouselError(f"the answer to a sequence of {sent.steps} steps is off by {off}")
    return True


def _measured(
    answered: Sequence[Answered], begin: float, seconds: float, cpu_seconds: float, checked: int
) -> Measured:
    settled, end = begin + SETTLE_S, begin + SETTLE_S + seconds
    steps = [one.sent.steps for one in answered if settled <= one.moment < end]
    took = [one.moment - one.sent.arrived for one in answered if settled <= one.sent.arrived < end]
    if not took:
        raise CarouselError(f"no sequence came in {seconds} s")
    return Measured(
        sequences=len(steps),
        steps=sum(steps),
        all_steps=sum(one.sent.steps for one in answered),
        cpu_seconds=cpu_seconds,
        latencies_ms=(np.quantile(took, np.linspace(0, 1, QUANTILES)) * 1000).round(4).tolist(),
        checked=checked,
    )


def main() -> None:
    """Run the plan of the command line."""
    uvloop.run(run(Plan(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
