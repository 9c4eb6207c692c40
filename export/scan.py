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
from export.row import next_of
from export.trace import Traced, trace
from model.cells.cell import Cell
from model.zoneout import Zone

LAST_STEPS = "last_steps_B2"
LENGTHS64 = "lengths64_B"


def add_last_steps(draft: Draft, lengths: str) -> None:
    """Add `LAST_STEPS` `[B, 2]`, int64: of each row its last step and its number, where `[T, B, n]` has its last state.

    Args:
        draft: Where the nodes go.
        lengths: Name of the steps of each row `[B]`, int32, at least 1.
    """
    draft.node("Cast", [lengths], [LENGTHS64], to=ELEMENT_TYPES["int64"])
    draft.node("Sub", [LENGTHS64, draft.weight("lengths.one", np.array(1))], ["last_steps_B"])
    draft.node("Shape", [lengths], ["rows_1"])
    draft.node("Squeeze", ["rows_1"], ["rows"])
    zero, one = (draft.weight(f"lengths.{name}", np.array(n)) for name, n in (("zero", 0), ("one", 1)))
    draft.node("Range", [zero, "rows", one], ["rows_B"])
    column = draft.weight("lengths.column", np.array([1]))
    for name in ("last_steps_B", "rows_B"):
        draft.node("Unsqueeze", [name, column], [f"{name}1"])
    draft.node("Concat", ["last_steps_B1", "rows_B1"], [LAST_STEPS], axis=1)


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
    for name, part in zip(before, traced.after, strict=True):
        draft.node("GatherND", [kept[part], LAST_STEPS], [next_of(name)])
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
