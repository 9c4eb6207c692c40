"""The recurrences that are one operator of ONNX, exactly.

Axes: T time, B batch, I input, H hidden, G gates.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from export.draft import Draft, as_float32
from export.gates import in_order
from export.options import Options, Target
from export.row import next_of
from model.cells.coupled import CoupledLSTM
from model.cells.gru import GRU
from model.cells.lstm import LSTM
from model.cells.peephole import PeepholeLSTM
from model.cells.rnn import RNN

# ONNX operators LSTM, GRU and RNN, inputs W, R and B; the LSTM's candidate is called c there, the GRU's h.
_LSTM = ("input", "output", "forget", "candidate")
_GRU = ("update", "reset", "candidate")

_SMALL_UNITS = 128
"""Up to here a gate more costs less than a Scan: `carousel bench export`."""


class Operator(NamedTuple):
    """One layer as one operator."""

    kind: str
    attributes: dict[str, Any]
    W: NDArray[np.float32]
    """`[G H, I]`"""
    R: NDArray[np.float32]
    """`[G H, H]`"""
    B: NDArray[np.float32]
    """`[2 G H]`: what is added beside W, then what is added beside R."""
    P: NDArray[np.float32] | None = None
    """`[3 H]`, the LSTM's: peepholes of input, output and forget gate."""


def operator_of(cell: Any, options: Options) -> Operator | None:
    """The operator that computes what a cell computes; None where there is none, or none that is better than a Scan.

    On CUDA an operator with peepholes, the GRU that resets before, and the RNN with relu are run by the CPU's kernel,
    states and inputs copied there and back. For the coupled cell an operator computes a fourth gate that is one minus
    another; on the CPU that pays for few units alone. There the operator RNN gives other bits in other batches. An
    operator does not tell what its gates do, and has no weights of 8 bits. See docs/adr/0004-export.md.
    """
    if options.observe or options.precision == "int8-weights":
        return None
    kind, target = type(cell), options.target  # a class made from one of these may compute anything
    if kind is LSTM:
        return _gated(cell, "LSTM", _LSTM)
    if kind is PeepholeLSTM and target == "cpu":
        peepholes = (cell.peephole_input, cell.peephole_output, cell.peephole_forget)
        return _gated(cell, "LSTM", _LSTM)._replace(P=as_float32(torch.cat(peepholes)))
    if kind is CoupledLSTM and (target == "cuda" or cell.units <= _SMALL_UNITS):
        return _gated(cell, "LSTM", ("-forget", "output", "forget", "candidate"))
    if kind is GRU:
        return _gru(cell, target)
    if kind is RNN and target == "cuda" and cell.nonlinearity is torch.tanh:
        return _gated(cell, "RNN", ("candidate",))
    return None


def add_fused(
    draft: Draft,
    operator: Operator,
    parts: Sequence[str],
    layer: str,
    x_TBI: str,
    lengths: str,
    *,
    from_end: bool = False,
) -> str:
    """Add one layer. It reads and leaves the parts of its state as `export.row` names them.

    Args:
        draft: Where the nodes go.
        operator: The layer.
        parts: Names of the parts of its state, hidden first.
        layer: What the names begin with.
        x_TBI: Name of the inputs `[T, B, I]`, float32.
        lengths: Name of the steps of each row `[B]`, int32; a row's state stops at its length.
        from_end: Read every row from its last step to its first.

    Returns:
        Name of the outputs `[T, B, H]`, zero beyond a row's length.
    """
    first = draft.weight("layers_axis", np.array([0]))
    for name in parts:
        draft.node("Unsqueeze", [name, first], [f"{name}_1BH"])
    inputs = [
        x_TBI,
        *(draft.weight(f"{layer}.{name}", getattr(operator, name)[None]) for name in ("W", "R", "B")),
        lengths,
        *(f"{name}_1BH" for name in parts),
    ]
    if operator.P is not None:
        inputs.append(draft.weight(f"{layer}.P", operator.P[None]))
    after = [f"{next_of(name)}_1BH" for name in parts]
    attributes = operator.attributes | ({"direction": "reverse"} if from_end else {})
    draft.node(operator.kind, inputs, [f"{layer}.output_T1BH", *after], **attributes)
    for name in map(next_of, parts):
        draft.node("Squeeze", [f"{name}_1BH", first], [name])
    directions = draft.weight("directions_axis", np.array([1]))
    draft.node("Squeeze", [f"{layer}.output_T1BH", directions], [f"{layer}.output_TBH"])
    return f"{layer}.output_TBH"


def _gru(cell: GRU, target: Target) -> Operator | None:
    if cell.bias_h is None:
        return _gated(cell, "GRU", _GRU, linear_before_reset=0) if target == "cpu" else None
    operator = _gated(cell, "GRU", _GRU, linear_before_reset=1)
    operator.B[-cell.units :] = as_float32(cell.bias_h)
    return operator


def _gated(cell: Any, kind: str, order: tuple[str, ...], **attributes: Any) -> Operator:
    W, R, bias = (in_order(cell, weight, order) for weight in (cell.weight_x, cell.weight_h, cell.bias))
    # The operator adds two biases, one beside each matrix; ours is one.
    B = np.concatenate([bias, np.zeros_like(bias)])
    return Operator(kind, {"hidden_size": cell.units, **attributes}, W, R, B)
