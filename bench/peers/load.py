"""One client process: streams that take one step at a time, as fast as they are answered, and check what they were told.

Started by `bench.peers.measure` with its plan as JSON on the command line; says `ready`, waits for a line, runs, says
`ran`, checks, and prints what it measured as JSON.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
import uvloop

from bench.load import QUANTILES, SETTLE_S
from bench.peers.check import Verdict, compare, direct, inputs
from bench.peers.wires import WIRES, Step
from carousel.errors import CarouselError

PATIENCE_S = 30.0
"""A server that has not answered this long after the end never will."""


@dataclass(frozen=True)
class Plan:
    """What one client process does."""

    wire: str
    """As in `bench.peers.wires.WIRES`."""
    port: int
    streams: int
    sessions: int
    """A stream; a message carries one step of each."""
    first_session: int
    """Of those of all clients: where in the round of inputs they start."""
    first_number: int
    """The streams are numbered from here; no other client of the server may use these numbers."""
    seconds: float
    model: str
    """The file, for checking."""
    input_size: int


@dataclass(frozen=True)
class Measured:
    """What one client process measured."""

    steps: int
    """Answered after it had settled."""
    all_steps: int
    cpu_seconds: float
    """For all of them."""
    latencies_ms: list[float]
    """Quantiles after it had settled, from the least to the greatest."""
    verdict: Verdict


class _Stream:
    """The answers of one stream, and when they came."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.answers: list[bytes] = []
        self.times: list[tuple[float, float]] = []
        """When an answer came, and how long it took."""

    async def run(self, end: float) -> None:
        while (sent := time.perf_counter()) < end:
            self.answers.append(await self.step(len(self.answers)))
            now = time.perf_counter()
            self.times.append((now, now - sent))


async def run(plan: Plan) -> Measured:
    """Open everything, wait for the word, run, and check."""
    firsts = range(plan.first_session, plan.first_session + plan.streams * plan.sessions, plan.sessions)
    sessions = [range(first, first + plan.sessions) for first in firsts]
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{plan.port}", options) as channel:
        streams = [
            _Stream(await WIRES[plan.wire](channel, inputs(some, plan.input_size), plan.first_number + k))
            for k, some in enumerate(sessions)
        ]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begin, cpu = time.perf_counter(), time.process_time()
        end = begin + SETTLE_S + plan.seconds
        async with asyncio.timeout(SETTLE_S + plan.seconds + PATIENCE_S):
            await asyncio.gather(*(stream.run(end) for stream in streams))
        cpu = time.process_time() - cpu
        print("ran", flush=True)
    settled = [
        took * 1000 for one in streams for moment, took in one.times if begin + SETTLE_S <= moment < end
    ]
    if not settled:
        raise CarouselError(f"nothing was answered in {plan.seconds} s")
    return Measured(
        steps=len(settled) * plan.sessions,
        all_steps=sum(len(one.times) for one in streams) * plan.sessions,
        cpu_seconds=cpu,
        latencies_ms=np.quantile(settled, np.linspace(0, 1, QUANTILES)).round(4).tolist(),
        verdict=_verdict(plan, sessions, streams),
    )


def _verdict(plan: Plan, sessions: list[range], streams: list[_Stream]) -> Verdict:
    steps = max(len(stream.answers) for stream in streams)
    expected = direct(Path(plan.model), range(sessions[0].start, sessions[-1].stop), steps)
    found = [
        compare(stream.answers, expected[:, k * plan.sessions : (k + 1) * plan.sessions])
        for k, stream in enumerate(streams)
    ]
    return Verdict(*(sum(column) for column in zip(*found, strict=True)))


def main() -> None:
    """Run the plan of the command line."""
    try:
        measured = uvloop.run(run(Plan(**json.loads(sys.argv[1]))))
    except (CarouselError, grpc.RpcError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
