"""A layer of any cell: what depends on the input for all time steps at once, the rest of a step in a Scan.

Axes: T time, B batch, I input, H hidden, P projected input, n one part of the state.
"""

from typing import Any

import numpy as np
import onnx
from torch import fx

from export.draft import Draft
from export.element_types import ELEMENT_TYPES
from export.nodes import Nodes
from export.places import add_count, add_picked, add_places
from export.row import next_of
from export.trace import Traced, trace
from model.cells.cell import Cell
from model.zoneout import Zone

LAST_STEPS = "last_steps_B"
LENGTHS64 = "lengths64_B"


def add_last_steps(draft: Draft, lengths: str) -> None:
    """Add `LAST_STEPS` `[B]`, int64: where the last step of each row is among those of all, `[T, B]`.

    Args:
        draft: Where the nodes go.
        lengths: Name of the steps of each row `[B]`, int32, at least 1.
    """
    rows = add_places(draft, lengths, 0, 1, "rows_B")
    draft.node("Cast", [lengths], [LENGTHS64], to=ELEMENT_TYPES["int64"])
    draft.node("Sub", [LENGTHS64, draft.weight("lengths.one", np.array(1))], ["last_B"])
    draft.node("Mul", ["last_B", add_count(draft, rows)], ["before_last_B"])
    draft.node("Add", ["before_last_B", rows], [LAST_STEPS])


def add_scan(
    draft: Draft, cell: Cell[Any, Any], zone: Zone | None, layer: str, x_TBI: str, *, observe: bool
) -> str:
    """Add one layer. It reads and leaves the parts of its state as `export.row` names them.

    A row that has ended runs on into the padding and its state is taken from its last step: cheaper than to hold
    the state in every step, and as exact.

    Args:
        draft: Where the nodes go; `add_last_steps` was there before.
        cell: The layer's recurrence; its own equations are what is written.
        zone: What zoneout makes of a step; None: nothing.
        layer: What the names begin with.
        x_TBI: Name of the inputs `[T, B, I]`.
        observe: Leave `observed_of(layer)` `[B, T, K]`, too.

    Returns:
        Name of the outputs `[T, B, H]`. They say nothing beyond a row's length.

    Raises:
        ExportError: a step cannot be traced, or does what has no form in ONNX here.
    """
    traced = trace(cell, zone, observe=observe)
    owner = type(cell).__name__
    hoisted = Nodes(draft, f"{layer}.", owner, traced.constants, {traced.x: x_TBI})
    (projected_TBP,) = hoisted.write([traced.all_projected])
    before = [f"{layer}.{part}" for part in cell.initial_state(1)._asdict()]
    kept = {traced.output: f"{layer}.output_TBH"}  # each value once, though the output is mostly a part, too
    for name, part in zip(before, traced.after, strict=True):
        kept.setdefault(part, f"{name}.kept_TBn")
    if traced.observed is not None:
        kept[traced.observed] = observed_of(layer)
    draft.node(
        "Scan",
        [*before, projected_TBP],
        [*(f"{name}.last" for name in before), *kept.values()],
        num_scan_inputs=1,
        # Time first, as a Scan makes them: another order would be a copy of everything at its end.
        scan_output_axes=[int(value is traced.observed) for value in kept],
        body=_body(draft, traced, owner, f"{layer}.step", tuple(kept)),
    )
    sizes = [part.shape[1] for part in cell.initial_state(1)]
    for name, part, size in zip(before, traced.after, sizes, strict=True):
        add_picked(draft, kept[part], size, LAST_STEPS, next_of(name))
    return kept[traced.output]


def observed_of(layer: str) -> str:
    """Name of a layer's statistics of every step."""
    return f"{layer}.observed_BTK"


def _body(draft: Draft, traced: Traced, owner: str, name: str, kept: tuple[fx.Node, ...]) -> onnx.GraphProto:
    """One step: parts of the state and projected input, to the next parts and to what is kept of every step."""
    inside = draft.inner()
    before, projected = [f"{name}.{part}" for part in traced.state], f"{name}.projected"
    given = dict(zip((*traced.state, traced.projected), (*before, projected), strict=True))
    nodes = Nodes(inside, f"{name}.", owner, traced.constants, given)
    results: list[str] = []
    for k, value in enumerate(nodes.write([*traced.after, *kept])):
        if inside.makes(value) and value not in results:
            results.append(value)
            continue
        # An input, a constant, or a result already: the name has to be another one.
        results.append(f"{name}.result{k}")
        inside.node("Identity", [value], results[-1:])
    return inside.to_body(name, [*before, projected], results)
