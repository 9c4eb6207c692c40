"""Layers for one step alone, each cell's equations as they are: no loop, and no operator that keeps time itself.

Axes: B batch, I input, H hidden, K statistics; T is 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.draft import Draft
from export.nodes import Nodes
from export.observe import OBSERVED
from export.row import next_of
from export.trace import trace_step
from model.cells.cell import Cell
from model.zoneout import Zone


def add_single_step(
    draft: Draft, cells: Sequence[Cell[Any, Any]], zones: Sequence[Zone | None], x_TBI: str, *, observe: bool
) -> str:
    """Add the layers; see `export.layers.add_layers`. No row has ended: the lengths are all 1, and nobody reads them.

    Args:
        draft: Where the nodes go.
        cells: One a layer.
        zones: What zoneout makes of a step of each, None: nothing.
        x_TBI: Name of the inputs `[1, B, I]`.
        observe: Leave `OBSERVED` `[B, K]`, too.

    Returns:
        Name of the outputs of the last layer `[B, 1, H]`.

    Raises:
        ExportError: a step cannot be traced, or does what has no form in ONNX here.
    """
    draft.node("Squeeze", [x_TBI, draft.weight("time_axis", np.array([0]))], ["x_BI"])
    x_BI, seen = "x_BI", []
    for layer, (cell, zone) in enumerate(zip(cells, zones, strict=True)):
        x_BI, *observed = _add_layer(draft, cell, zone, f"layer{layer}", x_BI, observe=observe)
        seen += observed
    if observe:
        draft.float32_node("Concat", seen, OBSERVED, axis=1)
    draft.node("Unsqueeze", [x_BI, draft.weight("step_axis", np.array([1]))], ["output_BTH"])
    return "output_BTH"


def _add_layer(
    draft: Draft, cell: Cell[Any, Any], zone: Zone | None, layer: str, x_BI: str, *, observe: bool
) -> list[str]:
    """Add one layer, its state as `export.row` names it: names of its output `[B, H]` and, observed, of `[B, K]`."""
    traced = trace_step(cell, zone, observe=observe)
    before = [f"{layer}.{part}" for part in cell.initial_state(1)._asdict()]
    given = {traced.x: x_BI, **dict(zip(traced.state, before, strict=True))}
    nodes = Nodes(draft, f"{layer}.step.", type(cell).__name__, traced.constants, given)
    observed = [] if traced.observed is None else [traced.observed]
    for name, value in zip(before, nodes.write(traced.after), strict=True):
        draft.node("Identity", [value], [next_of(name)])
    return nodes.write([traced.output, *observed])
