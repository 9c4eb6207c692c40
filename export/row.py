"""The state row of a session `[S]`: which part of the recurrence lies where, and the nodes that cut and join it."""

from collections.abc import Mapping

import numpy as np

from carousel.contract import Arena, Plane, Segment
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


def split_row(draft: Draft, segments: tuple[Segment, ...], arena: Arena | None = None) -> None:
    """Cut the row `[B, S]` into one value `[B, n]` a segment, under the segment's name.

    Args:
        draft: Where the nodes go.
        segments: The parts.
        arena: Names of the rows read and written; None: the state that comes in is the rows.
    """
    rows = STATE
    if arena is not None:
        rows = "rows_BS"
        draft.node("Gather", [STATE, arena.read_rows], [rows], axis=0)
    sizes = draft.weight("row.sizes", np.array([segment.size for segment in segments], dtype=np.int64))
    names = [segment.name for segment in segments]
    draft.node("Split", [draft.as_real(rows), sizes], names, axis=1)


def join_row(draft: Draft, segments: tuple[Segment, ...], arena: Arena | None = None) -> None:
    """Join what `next_of` names `[B, n]` into the next row `[B, S]`, the counterpart of `split_row`."""
    rows = STATE_OUT if arena is None else "next_rows_BS"
    draft.float32_node("Concat", [next_of(segment.name) for segment in segments], rows, axis=1)
    if arena is None:
        return
    column = draft.weight("row.column", np.array([1]))
    # A number minus itself is 0 if it is finite, and else NaN.
    draft.node("Sub", [rows, rows], ["nothing_BS"])
    draft.node("ReduceSum", ["nothing_BS", column], [arena.finite], keepdims=0)
    draft.node("Unsqueeze", [arena.write_rows, column], ["write_rows_B1"])
    # The only node that changes the arena, and after all that read it: the runtime may then do it in place.
    draft.node("ScatterND", [STATE, "write_rows_B1", rows], [STATE_OUT])
