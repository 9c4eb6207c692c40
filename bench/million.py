"""Many open sessions of which few are active: what a step takes, and the memory of a session that only waits."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.load import SERVICE
from bench.run import Load, service
from bench.run import measure as measure_load
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


def measure(models: Path, sessions: int, seconds: float = 3.0) -> dict[str, Any]:
    """Step 64 sessions while 1000 are open, then while many are, all of which have made a step that nobody acknowledged.

    Args:
        models: A repository with the model `bench`.
        sessions: How many are open in the end.
        seconds: Of each measurement.

    Returns:
        `few` and `many`: seconds a step (`step_s`: of a frame of 64 steps, divided by 64) and p99 of a frame, in
        milliseconds, with every figure behind them; `ratio` and `p99_ratio`: many by few. `bytes_a_session`: resident
        memory of the server that came with the sessions, and `bytes_beyond`: without their states and kept answers.
    """
    load = Load(1, streams=1, sessions=ACTIVE, depth=1, seconds=seconds, input_size=64)
    with service(models, "--max-sessions", str(sessions + 4 * ACTIVE), "--session-ttl-s", "86400") as ours:
        row_bytes, answer_bytes = uvloop.run(_sizes(ours.port))
        uvloop.run(open_and_step(ours.port, FEW))
        few = measure_load(ours, load)
        before, began = resident_bytes(ours.pid), time.perf_counter()
        uvloop.run(open_and_step(ours.port, sessions - FEW))
        opened_s, after = time.perf_counter() - began, resident_bytes(ours.pid)
        many = measure_load(ours, load)
    each = (after - before) / (sessions - FEW)
    return {
        "sessions": sessions,
        "opened_s": opened_s,
        "few": {"step_s": few.p50_ms / 1000 / ACTIVE, **asdict(few)},
        "many": {"step_s": many.p50_ms / 1000 / ACTIVE, **asdict(many)},
        "ratio": many.p50_ms / few.p50_ms,
        "p99_ratio": many.p99_ms / few.p99_ms,
        "bytes_a_session": each,
        "bytes_beyond": each - row_bytes - answer_bytes,
    }


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


async def _sizes(port: int) -> tuple[int, int]:
    """Bytes of a state row and of the answer to one step."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
        (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
    contract = Contract.from_json(model.contract)
    (plane,) = contract.planes
    answer_bytes = sum(port.size * NUMPY[port.dtype].itemsize for port in contract.outputs)
    return plane.size * NUMPY[plane.dtype].itemsize, answer_bytes
