"""Requests of the native protocol, put together by hand as a client in another language would."""

from typing import Any

import numpy as np

from carousel.wire import carousel_pb2 as pb
from tests.models import SYMBOLS

V = len(SYMBOLS)
"""Vocabulary of the tiny model."""


def tokens(*values: int) -> list[pb.Tensor]:
    return [pb.Tensor(name="tokens", data=np.array(values, "<i8").tobytes())]


def attach(*sessions: str) -> pb.StreamRequest:
    return pb.StreamRequest(attach=pb.Attach(sessions=sessions))


def steps(
    handles: list[int], firsts: list[int], chunks: list[list[int]], acknowledged: Any = ()
) -> pb.StreamRequest:
    return pb.StreamRequest(
        steps=pb.StepFrame(
            handles=handles,
            first_indices=firsts,
            lengths=[len(chunk) for chunk in chunks],
            acknowledged=acknowledged,
            inputs=tokens(*(value for chunk in chunks for value in chunk)),
        )
    )


async def open_session(stub: Any, **fields: Any) -> str:
    return (await stub.Open(pb.OpenRequest(model="tiny", **fields))).session


async def converse(stub: Any, *requests: pb.StreamRequest) -> list[pb.StreamResponse]:
    """One stream: send everything, then read until the server has answered it all."""
    call = stub.Stream()
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return [response async for response in call]


def answers(responses: list[pb.StreamResponse]) -> dict[tuple[int, int], np.ndarray]:
    """Logits `[T, V]` by (handle, first index), errors left out."""
    found = {}
    for response in responses:
        frame = response.answers
        rows = (
            np.frombuffer(frame.outputs[0].data, "<f4").reshape(-1, V) if frame.outputs else np.empty((0, V))
        )
        assert len(rows) == sum(frame.lengths)
        start = 0
        for handle, first, length in zip(frame.handles, frame.first_indices, frame.lengths, strict=True):
            if length:
                found[handle, first] = rows[start : start + length]
            start += length
    return found


def errors(responses: list[pb.StreamResponse]) -> dict[tuple[int, int], pb.ChunkError]:
    """Errors by (handle, first index)."""
    return {
        (response.answers.handles[error.position], response.answers.first_indices[error.position]): error
        for response in responses
        for error in response.answers.errors
    }
