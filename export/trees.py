"""A child-sum cell over the nodes of trees: one Scan that carries the states of all nodes.

Axes: N nodes, K children, I input, P projected input, n one part of the state.
"""

import numpy as np
import onnx

from export.draft import Draft
from export.element_types import ELEMENT_TYPES
from export.nodes import Nodes
from export.places import add_places
from export.trace import Traced, trace
from model.cells.child_sum import ChildSumLSTM


def add_tree(draft: Draft, cell: ChildSumLSTM, x_NI: str, children: str, most_children: int) -> str:
    """Add the cell over all nodes of a forest.

    A node reads the states of its children, which come before it, and adds its own. What is carried begins with a
    row of zeros, the state of a child that is not there. Every node copies what is carried: its size is
    what a forest costs, N * N numbers moved in all.

    Args:
        draft: Where the nodes go.
        cell: Its own equations are what is written.
        x_NI: Name of the inputs of all nodes `[N, I]`.
        children: Name of the children of each node `[N, K]`, int32, -1 for none.
        most_children: K.

    Returns:
        Name of the hidden states of all nodes `[N, H]`.
    """
    nobody = [part.new_zeros(most_children, part.shape[-1]) for part in cell.initial_state(1)]
    traced = trace(cell, None, before=nobody)
    parts = [f"node.{part}" for part in cell.initial_state(1)._fields]
    _add_places(draft, children)
    for name, part in zip(parts, nobody, strict=True):
        zeros = draft.weight(f"{name}.zeros", np.zeros((1, part.shape[-1]), np.float32))
        draft.node("Expand", [zeros, "carried.shape"], [f"{name}.nobody"])
    draft.node("Unsqueeze", [x_NI, draft.weight("node.axis", np.array([1]))], ["x_N1I"])
    hoisted = Nodes(draft, "node.", type(cell).__name__, traced.constants, {traced.x: "x_N1I"})
    (projected_N1P,) = hoisted.write([traced.all_projected])
    draft.node(
        "Scan",
        [*(f"{name}.nobody" for name in parts), projected_N1P, "child_rows_N1K", "own_rows_N11"],
        [f"{name}.all" for name in parts],
        num_scan_inputs=3,
        body=_body(draft, traced, type(cell).__name__, parts),
    )
    # The row of zeros is nobody's.
    slice_ = [
        draft.weight(f"nodes.{name}", np.array([n]))
        for name, n in (("first", 1), ("end", 2**62), ("axis", 0))
    ]
    hidden = parts[cell.initial_state(1)._fields.index("hidden")]
    draft.node("Slice", [f"{hidden}.all", *slice_], ["hidden_NH"])
    return "hidden_NH"


def _add_places(draft: Draft, children: str) -> None:
    """Add the rows `[N, 1, K]` of each node's children in what is carried, its own row `[N, 1, 1]`, and the shape `[N + 1, 1]`."""
    one, axis = draft.weight("node.one", np.array(1)), draft.weight("node.axis", np.array([1]))
    draft.node("Cast", [children], ["children64_NK"], to=ELEMENT_TYPES["int64"])
    draft.node("Add", ["children64_NK", one], ["child_rows_NK"])
    draft.node("Unsqueeze", ["child_rows_NK", axis], ["child_rows_N1K"])
    draft.node("Add", [add_places(draft, children, 0, 2, "nodes_N"), one], ["own_rows_N"])
    draft.node("Concat", [draft.weight("node.nobody", np.array([0])), "own_rows_N"], ["carried_rows"], axis=0)
    draft.node("Unsqueeze", ["carried_rows", axis], ["carried_rows_1"])
    draft.node("Shape", ["carried_rows_1"], ["carried.shape"])
    both = draft.weight("node.axes", np.array([1, 2]))
    draft.node("Unsqueeze", ["own_rows_N", both], ["own_rows_N11"])


def _body(draft: Draft, traced: Traced, owner: str, parts: list[str]) -> onnx.GraphProto:
    """One node: what is carried, its projected input, its children and its place, to what is carried on."""
    inside = draft.inner()
    carried = [f"{name}.carried" for name in parts]
    places = ["node.children_1K", "node.own_11"]
    for name, rows in zip(parts, carried, strict=True):
        inside.node("Gather", [rows, places[0]], [f"{name}.children_1Kn"], axis=0)
    given = dict(zip(traced.state, (f"{name}.children_1Kn" for name in parts), strict=True))
    nodes = Nodes(
        inside, "node.step.", owner, traced.constants, given | {traced.projected: "node.projected_1P"}
    )
    after = nodes.write(list(traced.after))
    for rows, own in zip(carried, after, strict=True):
        inside.node("ScatterND", [rows, places[1], own], [f"{rows}.next"])
    outputs = [f"{rows}.next" for rows in carried]
    return inside.to_body("node.step", [*carried, "node.projected_1P", *places], outputs, integers=places)
