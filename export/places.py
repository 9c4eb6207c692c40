"""Places along an axis, counted where the graph runs.

ONNX Runtime's CUDA provider has the shape of a value in host memory, and hands every node that computes with it to the
CPU. `Size` gives a number, and `Range` wants its bounds in host memory: between them there is nothing to hand over.
"""

import numpy as np

from export.draft import Draft


def add_places(draft: Draft, values: str, axis: int, rank: int, places: str) -> str:
    """Add the numbers 0, 1, … of the places along an axis.

    Args:
        draft: Where the nodes go.
        values: What has the axis; not empty.
        axis: Which.
        rank: How many axes there are.
        places: Name that the numbers `[n]`, int64, get.

    Returns:
        Their name.
    """
    zero, one = (draft.weight(f"places.{name}", np.array(n)) for name, n in (("zero", 0), ("one", 1)))
    line = values
    for other in reversed(range(rank)):
        if other != axis:
            draft.node("Gather", [line, zero], [f"{places}.without{other}"], axis=other)
            line = f"{places}.without{other}"
    draft.node("Size", [line], [f"{places}.count"])
    draft.node("Range", [zero, f"{places}.count", one], [places])
    return places


def add_count(draft: Draft, places: str) -> str:
    """Add how many places there are, `[1]`, int64, for nodes that want it beside the values; returns its name."""
    draft.node("Gather", [places, draft.weight("places.last", np.array([-1]))], [f"{places}.last"])
    draft.node("Add", [f"{places}.last", draft.weight("places.one", np.array(1))], [f"{places}.number"])
    return f"{places}.number"


def add_picked(draft: Draft, values: str, size: int, flat_B: str, output: str) -> None:
    """Add one row `[B, n]` of each of some blocks of rows `[a, b, n]`.

    Args:
        draft: Where the nodes go.
        values: Name of the blocks.
        size: n.
        flat_B: Name of the rows' places among all a times b, int64.
        output: Name that they get.
    """
    shape = draft.weight(f"places.of{size}", np.array([-1, size]))
    draft.node("Reshape", [values, shape], [f"{output}.all"])
    draft.node("Gather", [f"{output}.all", flat_B], [output])
