"""Running sums, exactly once: the sessions behind the fake server, by the rules of docs/adr/0003-commit-path.md."""

from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from carousel.contract import Contract, DType, Plane, Port, Segment, Signature, layout_hash
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason

WINDOW_CHUNKS = 8
CODES = {
    Reason.INVALID_INPUT: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.CONTENT_DIFFERS: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.SESSION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.SESSION_EXPIRED: grpc.StatusCode.NOT_FOUND,
    Reason.SESSION_CLOSED: grpc.StatusCode.NOT_FOUND,
    Reason.SESSION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.INDEX_UNEXPECTED: grpc.StatusCode.ABORTED,
    Reason.WINDOW_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.BACKEND_FAILED: grpc.StatusCode.INTERNAL,
    Reason.STATE_NOT_FINITE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.SNAPSHOT_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MODEL_DIFFERS: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MODEL_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
}


def contract(dtype: DType = "float32", shape: tuple[int, ...] = (2,)) -> Contract:
    inputs, outputs = (Port(name="x", dtype=dtype, shape=shape),), (Port(name="y", dtype=dtype, shape=shape),)
    planes = (Plane(input="state", output="state_out", dtype="float32", size=2),)
    segments = (Segment(name="layer0.sum", start=0, size=2),)
    return Contract(
        task="fake",
        recurrence="sum",
        inputs=inputs,
        outputs=outputs,
        lengths="lengths",
        planes=planes,
        segments=segments,
        invariant=True,
        signature=Signature(layout=layout_hash("sum", inputs, outputs, planes, segments), lineage="fake"),
    )


class RefusedError(Exception):
    def __init__(self, reason: int, expected_index: int = 0) -> None:
        super().__init__(f"fake {Reason.Name(reason)}")
        self.reason = reason
        self.expected_index = expected_index

    def chunk_error(self, position: int) -> pb.ChunkError:
        code = CODES[self.reason].value[0]
        return pb.ChunkError(
            position=position,
            code=code,
            reason=self.reason,
            message=str(self),
            expected_index=self.expected_index,
        )


@dataclass
class FakeSession:
    id: str
    model: str
    total: Any
    next_index: int = 0
    kept: dict[int, tuple[bytes, Any]] = field(default_factory=dict)
    fed: tuple[int, list[int]] | None = None
    """The last chunk of a generation: its index and tokens."""

    def acknowledge(self, index: int) -> None:
        assert index <= self.next_index, "the client acknowledged what was never answered"
        self.kept = {first: kept for first, kept in self.kept.items() if first + len(kept[1]) > index}

    def step(self, first: int, inputs: Any) -> Any:
        if first in self.kept:
            if self.kept[first][0] != inputs.tobytes():
                raise RefusedError(Reason.CONTENT_DIFFERS)
            return self.kept[first][1]
        if first != self.next_index:
            raise RefusedError(Reason.INDEX_UNEXPECTED, self.next_index)
        assert len(self.kept) < WINDOW_CHUNKS, "the client overran the window"
        outputs = self.total + np.cumsum(inputs, axis=0, dtype=inputs.dtype)
        self.total = outputs[-1]
        self.next_index += len(inputs)
        self.kept[first] = (inputs.tobytes(), outputs)
        return outputs
