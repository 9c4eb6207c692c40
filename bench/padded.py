"""What Carousel's batching is held against: whole sequences, padded to the longest of those that wait.

`python -m bench.padded MODEL MOST` prints its port and serves until it is ended. It speaks the frames of `carousel.v1`,
one sequence a frame, so that both sides move the same bytes; every sequence starts from zeros. Whenever the runtime is
free it runs whatever waits, MOST at most, all at once and to the end. Runtime, threads and loop are set as in the
service.
"""

import argparse
import asyncio
import gc
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import onnxruntime as ort
import uvloop

from carousel.wire.carousel_pb2 import AnswerFrame, StreamRequest, StreamResponse, Tensor

SWITCH_INTERVAL_S = 0.0005
"""The loop and the thread that runs the model wait for each other no longer than in the service."""


class Waiting(NamedTuple):
    """A sequence before its run."""

    steps: int
    blob: bytes
    """`[steps, I]`, float32."""
    answer: "asyncio.Future[bytes]"
    """`[steps, H]`, float32."""


class Padding:
    """One run at a time, of whatever waits.

    Args:
        model: The file.
        most: Sequences of one run.
    """

    def __init__(self, model: Path, most: int) -> None:
        self._most = most
        self._waiting: list[Waiting] = []
        self._running: asyncio.Task[None] | None = None
        # The flag for denormals binds to the thread that makes the session.
        self._thread = ThreadPoolExecutor(1)
        self._session = self._thread.submit(open_model, model).result()
        self._state_size = next(port.shape[-1] for port in self._session.get_inputs() if port.name == "state")

    async def answer(self, steps: int, blob: bytes) -> bytes:
        """The outputs of one sequence, once the run is over that it was in."""
        waiting = Waiting(steps, blob, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._running is None:
            self._running = asyncio.create_task(self._run_all())
        return await waiting.answer

    async def _run_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await loop.run_in_executor(self._thread, self._run, batch)
            except Exception as error:
                for one in batch:
                    one.answer.set_exception(error)
                continue
            for one, answer in zip(batch, answers, strict=True):
                one.answer.set_result(answer)
        self._running = None

    def _run(self, batch: Sequence[Waiting]) -> list[bytes]:
        lengths = np.array([one.steps for one in batch], np.int32)
        inputs = [np.frombuffer(one.blob, "<f4").reshape(one.steps, -1) for one in batch]
        x = np.zeros((len(batch), lengths.max(), inputs[0].shape[1]), np.float32)
        for row, steps in zip(x, inputs, strict=True):
            row[: len(steps)] = steps
        state = np.zeros((len(batch), self._state_size), np.float32)
        (y,) = self._session.run(["y"], {"x": x, "lengths": lengths, "state": state})
        return [row[: one.steps].tobytes() for one, row in zip(batch, y, strict=True)]


def open_model(model: Path) -> ort.InferenceSession:
    """A session with the options of `service.runtime`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


async def serve(padding: Padding) -> None:
    """Serve on a free port of 127.0.0.1 until cancelled."""

    async def stream(_: Any, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        one_at_a_time = asyncio.Lock()

        async def reply(message: bytes) -> None:
            frame = StreamRequest.FromString(message).steps
            y = await padding.answer(frame.lengths[0], frame.inputs[0].data)
            answers = AnswerFrame(
                handles=frame.handles, lengths=frame.lengths, outputs=[Tensor(name="y", data=y)]
            )
            async with one_at_a_time:
                await context.write(StreamResponse(answers=answers).SerializeToString())

        async with asyncio.TaskGroup() as replies:
            while isinstance(message := await context.read(), bytes):
                replies.create_task(reply(message))

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Stream": grpc.stream_stream_rpc_method_handler(stream)
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("carousel.v1.Carousel", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.freeze()
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Serve what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("most", type=int)
    args = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(serve(Padding(args.model, args.most)))


if __name__ == "__main__":
    main()
