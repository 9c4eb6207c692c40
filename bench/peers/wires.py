"""How a client takes a step at each server: a stream or a call, one step under way, the answer's numbers as bytes.

Everything that does not depend on the answers is made before the clock starts. Carousel numbers its steps, so its
frames are made as they are sent.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import numpy as np

from bench.load import SERVICE
from bench.peers.check import PERIOD
from bench.peers.messages import (
    InferTensor,
    Input,
    ModelInferRequest,
    ModelInferResponse,
    PredictionResponse,
    PredictionsRequest,
)
from carousel.errors import CarouselError
from carousel.wire.carousel_pb2 import Attach, OpenRequest, StepFrame, StreamRequest, StreamResponse, Tensor
from carousel.wire.carousel_pb2_grpc import CarouselStub

MODEL = "bench"
INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions2"

Step = Callable[[int], Awaitable[bytes]]
"""Sends step t and gives its outputs `[S, H]`, float32, as bytes."""
Wire = Callable[[grpc.aio.Channel, np.ndarray, int], Awaitable[Step]]
"""Opens a stream for the sessions of inputs `[PERIOD, S, I]`; the number is one no other stream of the run has."""


async def carousel(channel: grpc.aio.Channel, x: np.ndarray, _: int) -> Step:
    """One stream of Carousel, whose frames carry a step of each session."""
    stub: Any = CarouselStub(channel)  # type: ignore[no-untyped-call]
    sessions = x.shape[1]
    opened = [await stub.Open(OpenRequest(model=MODEL)) for _ in range(sessions)]
    call: Any = channel.stream_stream(SERVICE)()
    attach = Attach(sessions=[one.session for one in opened])
    await call.write(StreamRequest(attach=attach).SerializeToString())
    await _read(call)
    blobs = [[Tensor(name="x", data=rows.tobytes())] for rows in x]
    handles = list(range(sessions))

    async def step(index: int) -> bytes:
        column = [index] * sessions
        frame = StepFrame(
            handles=handles, first_indices=column, acknowledged=column, inputs=blobs[index % PERIOD]
        )
        await call.write(StreamRequest(steps=frame).SerializeToString())
        return await _answers(call, handles)

    return step


async def _answers(call: Any, handles: list[int]) -> bytes:
    """The outputs of all handles, in their order, in however many frames they come."""
    rows: dict[int, bytes] = {}
    while True:
        frame = StreamResponse.FromString(await _read(call)).answers
        if frame.errors:
            raise CarouselError(frame.errors[0].message)
        data = frame.outputs[0].data
        if frame.handles == handles:
            return data
        size = len(data) // len(frame.handles)
        rows.update((handle, data[k * size : (k + 1) * size]) for k, handle in enumerate(frame.handles))
        if len(rows) == len(handles):
            return b"".join(rows[handle] for handle in handles)


async def inference(channel: grpc.aio.Channel, x: np.ndarray, number: int) -> Step:
    """Unary calls of the Open Inference Protocol: MLServer and KServe."""
    requests = [_infer_request(number, row) for row in _only(x)]
    call: Any = channel.unary_unary(INFER)

    async def step(index: int) -> bytes:
        answer = ModelInferResponse.FromString(await call(requests[index % PERIOD]))
        return bytes(answer.raw_output_contents[0])

    return step


def _infer_request(session: int, row: np.ndarray) -> bytes:
    tensors = [
        InferTensor(name="session", datatype="INT64", shape=[1, 1]),
        InferTensor(name="x", datatype="FP32", shape=[1, len(row)]),
    ]
    contents = [session.to_bytes(8, "little"), row.tobytes()]
    request = ModelInferRequest(model_name=MODEL, inputs=tensors, raw_input_contents=contents)
    return bytes(request.SerializeToString())


async def predictions(channel: grpc.aio.Channel, x: np.ndarray, number: int) -> Step:
    """One stream of TorchServe, which is one sequence."""
    call: Any = channel.stream_stream(PREDICT)()
    requests = [
        PredictionsRequest(
            model_name=MODEL, sequence_id=str(number), input=[Input(key="data", value=row.tobytes())]
        ).SerializeToString()
        for row in _only(x)
    ]

    async def step(index: int) -> bytes:
        await call.write(requests[index % PERIOD])
        answer = PredictionResponse.FromString(await _read(call))
        if answer.status.code:
            raise CarouselError(
                f"TorchServe answered with code {answer.status.code}: {answer.status.message}"
            )
        return bytes(answer.prediction)

    return step


async def _read(call: Any) -> bytes:
    message = await call.read()
    if not isinstance(message, bytes):
        raise CarouselError(f"the server ended the stream: {await call.code()} {await call.details()}")
    return message


def _only(x: np.ndarray) -> Sequence[np.ndarray]:
    """The inputs of a stream's one session."""
    return list(x[:, 0])


WIRES: dict[str, Wire] = {"carousel": carousel, "inference": inference, "predictions": predictions}
