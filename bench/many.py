"""Many sessions on a server, each at its first step, and the proof that they are still there. Axes: N sessions."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.load import SERVICE
from bench.padded import open_model
from bench.peers.check import TOLERANCE
from carousel.errors import CarouselError
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub

FRAME = 1000
"""Sessions that are attached and stepped at once."""
CALLS = 64
"""Sessions that are being opened at once."""


class Sessions:
    """Opens sessions, steps them, and holds their answers against those of the model run directly.

    Args:
        models: The repository.
        count: N.
    """

    def __init__(self, models: Path, count: int) -> None:
        self._model = open_model(models / "bench" / "1" / "model.onnx")
        sizes = {port.name: port.shape[-1] for port in self._model.get_inputs()}
        self._x = np.random.default_rng(0).standard_normal((2, count, sizes["x"])).astype("<f4")
        self._zeros = np.zeros((count, sizes["state"]), np.float32)
        self._ids = [""] * count
        self._first = np.empty(0)

    async def open_and_step(self, port: int) -> None:
        """Open all sessions, and give each its first step."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
            numbers = iter(range(len(self._ids)))

            async def some() -> None:
                for number in numbers:
                    self._ids[number] = (await stub.Open(pb.OpenRequest(model="bench"))).session

            await asyncio.gather(*(some() for _ in range(CALLS)))
            self._first = await self._step(channel, 0)

    async def check(self, port: int) -> None:
        """Ask for the first answers once more, and take a second step.

        Raises:
            CarouselError: A session has forgotten its answer, or does not go on where it was.
        """
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            again, second = await self._step(channel, 0), await self._step(channel, 1)
        if again.tobytes() != self._first.tobytes():
            raise CarouselError("an answer that was kept is not the one that was given")
        lengths, state = np.ones(len(self._ids), np.int32), self._zeros
        for x, got in zip(self._x, (self._first, second), strict=True):
            y, state = self._model.run(None, {"x": x[:, None], "lengths": lengths, "state": state})
            off = np.abs(got - y[:, 0]).max()
            if not off <= TOLERANCE:  # nor for a NaN
                raise CarouselError(f"the answer to a session is off by {off}")

    async def _step(self, channel: grpc.aio.Channel, index: int) -> np.ndarray:
        """The answers of all sessions to the step with this index, `[N, H]`."""
        call: Any = channel.stream_stream(SERVICE)()
        answers = []
        for start in range(0, len(self._ids), FRAME):
            ids, x = self._ids[start : start + FRAME], self._x[index, start : start + FRAME]
            await call.write(pb.StreamRequest(attach=pb.Attach(sessions=ids)).SerializeToString())
            await call.read()
            frame = pb.StepFrame(handles=range(start, start + len(ids)), first_indices=[index] * len(ids))
            frame.inputs.add(name="x", data=x.tobytes())
            await call.write(pb.StreamRequest(steps=frame).SerializeToString())
            answers.append(await _answers(call, start, len(ids)))
        await call.done_writing()
        await call.read()
        return np.concatenate(answers)


async def _answers(call: Any, start: int, count: int) -> np.ndarray:
    """One answer for each of the handles from `start` on, in their order."""
    handles: list[int] = []
    blobs = []
    while len(handles) < count:
        frame = pb.StreamResponse.FromString(await call.read()).answers
        if frame.errors:
            raise CarouselError(frame.errors[0].message)
        handles += frame.handles
        blobs.append(frame.outputs[0].data)
    places = np.argsort(handles)
    if (np.array(handles)[places] != np.arange(start, start + count)).any():
        raise CarouselError("expected one answer a session")
    return np.frombuffer(b"".join(blobs), "<f4").reshape(count, -1)[places]
