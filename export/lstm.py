"""The LSTM as a recurrence of a step graph: one fused operator a layer."""

from collections.abc import Sequence

import numpy as np

from export.draft import Draft, as_float32
from export.gates import lstm_gates_to_onnx
from export.row import next_of
from model.cells.lstm import LSTM


def lstm_state(cells: Sequence[LSTM]) -> dict[str, int]:
    """Sizes of the parts of the state, in the order they have in the row: layer0.hidden, layer0.cell, layer1..."""
    return {
        f"layer{layer}.{part}": cell.weight_h.shape[1]
        for layer, cell in enumerate(cells)
        for part in ("hidden", "cell")
    }


def add_lstm(draft: Draft, cells: Sequence[LSTM], x_TBI: str, lengths: str) -> str:
    """Add the layers; they read the values of `lstm_state` and leave the next ones under `next_of` names.

    Args:
        draft: Where the nodes go.
        cells: One a layer, the first fed by `x_TBI`.
        x_TBI: Name of the inputs `[T, B, I]`, float32.
        lengths: Name of the steps of each row `[B]`, int32; a row's state stops at its length.

    Returns:
        Name of the outputs of the last layer `[T, B, H]`, zero beyond a row's length.
    """
    draft.weight("lstm.layers_axis", np.array([0], dtype=np.int64))
    draft.weight("lstm.directions_axis", np.array([1], dtype=np.int64))
    for layer, cell in enumerate(cells):
        x_TBI = _add_layer(draft, cell, f"layer{layer}", x_TBI, lengths)
    return x_TBI


def _add_layer(draft: Draft, cell: LSTM, layer: str, x_TBI: str, lengths: str) -> str:
    weights = _add_weights(draft, cell, layer)
    hidden, state = f"{layer}.hidden", f"{layer}.cell"
    for name in (hidden, state):
        draft.node("Unsqueeze", [name, "lstm.layers_axis"], [f"{name}_1BH"])
    draft.node(
        "LSTM",
        [x_TBI, *weights, lengths, f"{hidden}_1BH", f"{state}_1BH"],
        [f"{layer}.output_T1BH", f"{next_of(hidden)}_1BH", f"{next_of(state)}_1BH"],
        hidden_size=cell.weight_h.shape[1],
    )
    for name in (next_of(hidden), next_of(state)):
        draft.node("Squeeze", [f"{name}_1BH", "lstm.layers_axis"], [name])
    draft.node("Squeeze", [f"{layer}.output_T1BH", "lstm.directions_axis"], [f"{layer}.output_TBH"])
    return f"{layer}.output_TBH"


def _add_weights(draft: Draft, cell: LSTM, layer: str) -> list[str]:
    bias = lstm_gates_to_onnx(as_float32(cell.bias))
    return [
        draft.weight(f"{layer}.W", lstm_gates_to_onnx(as_float32(cell.weight_x))[None]),
        draft.weight(f"{layer}.R", lstm_gates_to_onnx(as_float32(cell.weight_h))[None]),
        # The operator adds two biases, one beside each matrix; ours is one.
        draft.weight(f"{layer}.B", np.concatenate([bias, np.zeros_like(bias)])[None]),
    ]
