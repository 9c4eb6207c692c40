"""An answer frame taken apart: what each of its chunks is told. Pure."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from carousel.client.errors import Refusal
from carousel.client.lane import Lane
from carousel.client.served import Arrays
from carousel.wire.carousel_pb2 import AnswerFrame
from carousel.wire.frames import FrameError, unpack


class Answer(NamedTuple):
    """What one chunk is told."""

    lane: Lane
    first: int
    """Index of the chunk's first step."""
    length: int
    """Number of steps answered; 0 for a refusal."""
    outcome: Arrays | Refusal
    """The outputs `[length, *shape]` by name, the caller's own copies; or what is wrong."""


def answers(frame: AnswerFrame, lane_of: Callable[[int], Lane | None]) -> Iterator[Answer]:
    """Go through the chunks of a frame in their order.

    Args:
        frame: As it came.
        lane_of: Gives the lane of a handle; None for one that has left, whose answers are passed over.

    Raises:
        FrameError: columns of unequal length, or tensors that are not the model's outputs.
    """
    handles, firsts = frame.handles[:], frame.first_indices[:]
    refusals = {error.position: Refusal.of_chunk(error) for error in frame.errors}
    lengths = frame.lengths[:] or [0 if k in refusals else 1 for k in range(len(handles))]
    if not len(handles) == len(firsts) == len(lengths):
        raise FrameError(f"answers: columns of {len(handles)}, {len(firsts)} and {len(lengths)} chunks")
    lanes = [lane_of(handle) for handle in handles]
    outputs = _outputs(frame, next((lane for lane in lanes if lane is not None), None), sum(lengths))
    start = 0
    for position, (lane, first, length) in enumerate(zip(lanes, firsts, lengths, strict=True)):
        refusal = refusals.get(position)
        if lane is not None and refusal is not None:
            yield Answer(lane, first, 0, refusal)
        elif lane is not None:
            own = {name: array[start : start + length].copy() for name, array in outputs.items()}
            yield Answer(lane, first, length, own)
        start += length


def _outputs(frame: AnswerFrame, lane: Lane | None, rows: int) -> Arrays:
    """All rows of the frame. Any of its lanes will do: a frame holds one version of one model."""
    if lane is None or not rows:
        return {}
    ports = lane.model.contract.outputs
    return dict(zip((port.name for port in ports), unpack(ports, frame.outputs, rows), strict=True))
