"""The state row of a session `[S]`: which part of the recurrence lies where, and the nodes that cut and join it."""

from collections.abc import Mapping

import numpy as np

from carousel.contract import Plane, Segment
from export.draft import Draft

STATE = "state"
STATE_OUT = "state_out"


def next_of(segment: str) -> str:
    """Name of the value that replaces `segment` in the next row."""
    return f"{segment}.next"


def lay_out(sizes: Mapping[str, int]) -> tuple[Segment, ...]:
    """Put named parts side by side in the order given."""
    starts = np.cumsum([0, *sizes.values()]).tolist()
    return tuple(
        Segment(name=name, start=start, size=size)
        for (name, size), start in zip(sizes.items(), starts, strict=False)
    )


def plane_of(segments: tuple[Segment, ...]) -> Plane:
    """The one plane `[B, S]` float32 that our own models have."""
    size = sum(segment.size for segment in segments)
    return Plane(input=STATE, output=STATE_OUT, dtype="float32", size=size)


def split_row(draft: Draft, segments: tuple[Segment, ...]) -> None:
    """Cut the row `[B, S]` into one value `[B, n]` a segment, under the segment's name."""
    sizes = draft.weight("row.sizes", np.array([segment.size for segment in segments], dtype=np.int64))
    draft.node("Split", [STATE, sizes], [segment.name for segment in segments], axis=1)


def join_row(draft: Draft, segments: tuple[Segment, ...]) -> None:
    """Join what `next_of` names `[B, n]` into the next row `[B, S]`."""
    draft.node("Concat", [next_of(segment.name) for segment in segments], [STATE_OUT], axis=1)
