"""Many open sessions of which few are active: what a step takes, and the memory of a session that only waits."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.load import SERVICE
from bench.rows import AtMost, Ratio
from bench.run import Load, measure, service
from carousel.contract import Contract
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from carousel.wire.frames import NUMPY

FEW = 1000
"""Open sessions of the baseline."""
ACTIVE = 64
CONNECTIONS = 4
CALLS = 32
"""Sessions being opened at once, a connection."""
FRAME = 1000
"""Sessions stepped at once."""


def many_sessions(models: Path, sessions: int, runs: int, seconds: float) -> list[Ratio]:
    """Step 64 sessions beside many open ones, and beside a few, on two servers in turn.

    All of the others have made a step that nobody acknowledged: their states and answers are held.
    """
    load = Load(1, streams=1, sessions=ACTIVE, depth=1, seconds=seconds, input_size=64)
    options = ("--max-sessions", str(sessions + 4 * ACTIVE * runs), "--session-ttl-s", "86400")
    with service(models, *options) as crowded, service(models, *options) as empty:
        held_bytes = uvloop.run(_held_bytes(crowded.port))
        uvloop.run(open_and_step(crowded.port, FEW))
        uvloop.run(open_and_step(empty.port, FEW))
        before = resident_bytes(crowded.pid)
        uvloop.run(open_and_step(crowded.port, sessions - FEW))
        each = (resident_bytes(crowded.pid) - before) / (sessions - FEW)
        pairs = [(measure(crowded, load), measure(empty, load)) for _ in range(runs)]
    row, against = f"{sessions} sessions open, {ACTIVE} active", f"{FEW} open"
    samples = [{"ours": asdict(ours), "base": asdict(base)} for ours, base in pairs]
    memory = {"ours": samples[0]["ours"] | {"bytes_a_session": each}}
    return [
        Ratio(row, "time a step", against, AtMost(1.1), [a.p50_ms / b.p50_ms for a, b in pairs], samples),
        Ratio(row, "p99", against, AtMost(1.5), [a.p99_ms / b.p99_ms for a, b in pairs], samples),
        Ratio(row, "bytes a session", "its state and its answer", AtMost(512), [each - held_bytes], [memory]),
    ]


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, from `/proc` (proc(5), VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


async def open_and_step(port: int, count: int) -> None:
    """Open sessions over several connections, and give each one step."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(CONNECTIONS)]
    left, ids = iter(range(count)), list[str]()

    async def some(channel: grpc.aio.Channel) -> None:
        stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
        for _ in left:
            ids.append((await stub.Open(pb.OpenRequest(model="bench"))).session)

    try:
        await asyncio.gather(*(some(channel) for channel in channels for _ in range(CALLS)))
        for start in range(0, count, FRAME):
            await _step(channels[0], ids[start : start + FRAME])
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def _step(channel: grpc.aio.Channel, ids: list[str]) -> None:
    """One step of each session."""
    call: Any = channel.stream_stream(SERVICE)()
    await call.write(pb.StreamRequest(attach=pb.Attach(sessions=ids)).SerializeToString())
    frame = pb.StepFrame(handles=range(len(ids)), first_indices=[0] * len(ids))
    frame.inputs.add(name="x", data=bytes(4 * 64 * len(ids)))
    await call.write(pb.StreamRequest(steps=frame).SerializeToString())
    await call.done_writing()
    answered = 0
    async for message in call:
        answers = pb.StreamResponse.FromString(message).answers
        if answers.errors:
            raise RuntimeError(answers.errors[0].message)
        answered += len(answers.handles)
    if answered != len(ids):
        raise RuntimeError(f"{len(ids)} sessions made a step, and {answered} were answered")


async def _held_bytes(port: int) -> int:
    """Bytes of a state row and of the answer to one step."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
        (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
    contract = Contract.from_json(model.contract)
    (plane,) = contract.planes
    answer_bytes = sum(port.size * NUMPY[port.dtype].itemsize for port in contract.outputs)
    return plane.size * NUMPY[plane.dtype].itemsize + answer_bytes
