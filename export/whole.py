"""Whole-input graphs: networks that read both ways, and trees.

Axes: T time, B batch, N nodes, K children, I input, W what the head reads.
"""

from typing import NamedTuple

import onnx
import torch
from torch import nn

from carousel.contract import Contract, Port, Provenance, Signature, layout_hash
from export.draft import Draft
from export.layers import recurrence_of
from export.modules import add_module
from export.options import PLAIN, Options
from export.readers import Read, add_reader, readers_of
from export.trees import add_tree
from model.bidirectional import Bidirectional
from model.cells.child_sum import ChildSumLSTM

LENGTHS = "lengths"
CHILDREN = "children"


class Origin(NamedTuple):
    """What a contract says that no weight shows."""

    task: str
    lineage: str
    provenance: Provenance = Provenance()


class Whole(NamedTuple):
    """A network that needs all of its input at once, with what comes before and after it; all in evaluation."""

    before: nn.Module
    """From the input of any number of steps or nodes `[..., *shape]` to `[..., I]`."""
    network: Bidirectional | ChildSumLSTM
    head: nn.Module
    """From `[..., W]` to the output. Where the output has no time axis, it reads what the last layer's two readers
    ended with, side by side."""
    input: Port
    """Its axes are batch and time, or node."""
    output: Port
    """Its axes are the input's, or the batch alone: one answer for a whole sequence."""
    origin: Origin
    most_children: int = 2
    """K, of trees."""
    max_steps: int = 1024
    """Longest sequence, or most nodes, that is verified."""


def whole_model(whole: Whole, options: Options = PLAIN) -> onnx.ModelProto:
    """Draw the graph; its contract promises nothing that was not measured yet.

    Args:
        whole: The network.
        options: Where it is to run.

    Raises:
        ExportError: a part of it has no form in ONNX here.
    """
    contract, draft = whole_contract(whole, options), Draft()
    name = whole.input.name
    if isinstance(whole.network, ChildSumLSTM):
        x_NI = _add_before(draft, whole, name, axes=1)
        read, axes = add_tree(draft, whole.network, x_NI, CHILDREN, whole.most_children), 1
    else:
        turned = [1, 0, *range(2, 2 + len(whole.input.shape))]
        draft.node("Transpose", [name], [f"{name}.turned"], perm=turned)
        x_TBI = _add_before(draft, whole, f"{name}.turned", axes=2)
        steps = add_reader(draft, whole.network, x_TBI, LENGTHS, options)
        each = "time" in whole.output.axes
        read, axes = (steps.outputs_BTH, 2) if each else (_add_ends(draft, steps), 1)
    width = torch.zeros(_width(whole))
    draft.node(
        "Identity", [add_module(draft, whole.head, "head", [read], [width], axes)], [whole.output.name]
    )
    return draft.to_model(contract)


def whole_contract(whole: Whole, options: Options = PLAIN) -> Contract:
    """What the graph promises before anything was measured."""
    children = Port(
        name=CHILDREN,
        dtype="int32",
        shape=(whole.most_children,),
        meaning="children",
        axes=("node",),
        earlier_nodes=True,
    )
    tree = isinstance(whole.network, ChildSumLSTM)
    inputs, outputs = ((whole.input, children) if tree else (whole.input,)), (whole.output,)
    recurrence = _recurrence(whole.network)
    return Contract(
        format=3,
        kind="whole",
        task=whole.origin.task,
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths="" if tree else LENGTHS,
        planes=(),
        segments=(),
        max_steps=whole.max_steps,
        invariant=False,
        signature=Signature(
            layout=layout_hash(recurrence, inputs, outputs, (), ()), lineage=whole.origin.lineage
        ),
        provenance=whole.origin.provenance,
        runs_on=options.target,
    )


def _add_before(draft: Draft, whole: Whole, name: str, axes: int) -> str:
    dtype = getattr(torch, whole.input.dtype)
    return add_module(
        draft, whole.before, "before", [name], [torch.zeros(whole.input.shape, dtype=dtype)], axes
    )


def _add_ends(draft: Draft, read: Read) -> str:
    """What the last layer's readers ended with, `[B, W]`."""
    draft.node("Concat", [end["hidden"] for end in read.ends[-1]], ["ends_BW"], axis=1)
    return "ends_BW"


def _width(whole: Whole) -> int:
    network = whole.network
    return network.hidden_size if isinstance(network, ChildSumLSTM) else network.width


def _recurrence(network: Bidirectional | ChildSumLSTM) -> str:
    if isinstance(network, ChildSumLSTM):
        return "child-sum tree"
    return f"{recurrence_of(readers_of(network)[::2])}, both ways"
