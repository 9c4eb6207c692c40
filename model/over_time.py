"""A cell over time: the loop that defines it, and the fused kernel where that is exact.

Axes: T time, B batch, I input, H hidden.
"""

import torch
from torch import Tensor

from model.cells.lstm import LSTM, LSTMState


def unroll(cell: LSTM, x_TBI: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """Run a cell over time, a step at a time: the reference for every faster way.

    Args:
        cell: The recurrence.
        x_TBI: Inputs `[T, B, I]`, T at least 1.
        state: Where the sequences start, `[B, H]` each; not modified.

    Returns:
        Outputs `[T, B, H]` and the state after the last step.
    """
    outputs = []
    for projected_t in cell.inputs(x_TBI):
        output, state = cell.update(cell.gates(projected_t, state.hidden, state), state)
        outputs.append(output)
    return torch.stack(outputs), state


def fused(cell: LSTM, x_TBI: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """The same as `unroll`, in the library's kernel (oneDNN, cuDNN).

    Under bfloat16 autocast oneDNN keeps the cell in bfloat16 inside the call (1 + 0.002 stays 1); the state
    that is handed on is of the given state's type again, and a chunk is short.
    """
    weights = (cell.weight_x, cell.weight_h, cell.bias, torch.zeros_like(cell.bias))
    output, hidden, last_cell = torch.lstm(
        x_TBI,
        (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)),
        weights,
        has_biases=True,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),  # else cuDNN keeps nothing for the backward pass
        bidirectional=False,
        batch_first=False,
    )
    return output, LSTMState(
        hidden.squeeze(0).to(state.hidden.dtype), last_cell.squeeze(0).to(state.cell.dtype)
    )
