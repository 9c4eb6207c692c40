"""A module without a recurrence, such as an embedding or a head, written into a graph."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, export

from export.draft import Draft
from export.errors import ExportError
from export.nodes import Nodes
from export.trace import constants_of

_SIZES = (3, 5)
"""Of the open axes; any sizes of 2 or more: PyTorch takes 0 and 1 for special."""


def add_module(
    draft: Draft, module: nn.Module, name: str, inputs: Sequence[str], shapes: Sequence[Tensor], axes: int
) -> str:
    """Add what a module computes, in evaluation.

    Args:
        draft: Where the nodes go.
        module: Called with one tensor an input; every operation is in the table of `export.aten`.
        name: What the names begin with.
        inputs: Names of the inputs.
        shapes: A tensor an input, with its dtype, and with its shape without the open axes; the numbers do not matter.
        axes: How many open axes every input begins with, 1 or 2.

    Returns:
        Name of the output, which begins with the same axes.

    Raises:
        ExportError: the module cannot be traced, or does what has no form in ONNX here.
    """
    sizes = _SIZES[:axes]
    arguments = tuple(shape.expand(*sizes, *shape.shape).contiguous() for shape in shapes)
    open_axes = {axis: Dim(f"axis{axis}") for axis in range(axes)}
    owner = type(module).__name__
    try:
        with torch.no_grad():
            # The axes may be tied to each other by the way that a module is called, never to a size.
            program = export(
                _Positional(module).eval(), arguments, dynamic_shapes=((open_axes,) * len(inputs),)
            )
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"{owner}: PyTorch cannot trace it: {first}") from error
    given = dict(zip(program.graph_signature.user_inputs, inputs, strict=True))
    (results,) = next(node for node in program.graph.nodes if node.op == "output").args
    (output,) = Nodes(draft, f"{name}.", owner, constants_of(program), given).write(results)
    return output


class _Positional(nn.Module):
    """The module under a name that `export.nodes` takes off those of its weights."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.cell(*inputs)
        return result
