"""A cell over time: the loop that defines it, and the library's kernels where they are exact.

Axes: T time, B batch, I input, H hidden.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.cells.gated import Gated
from model.cells.gru import GRU
from model.cells.lstm import LSTM
from model.cells.projected import ProjectedLSTM
from model.cells.rnn import RNN


def unroll(
    cell: Gated[Any, Any],
    x_TBI: Tensor,
    state: Any,
    *,
    mask_BH: Tensor | None = None,
    zone: Callable[[Any, Any], Any] | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Any]:
    """Run a cell over time, a step at a time: the reference for every faster way.

    Args:
        cell: The recurrence.
        x_TBI: Inputs `[T, B, I]`, T at least 1.
        state: Where the sequences start; not modified.
        mask_BH: Factors through which the gates see the hidden state; what is carried stays whole.
        zone: From the states before and after a step to the one that is carried.
        lengths_B: int64, the steps of each row; None: T. The state of a row stops at its length, and its outputs
            are zero from there on.

    Returns:
        Outputs `[T, B, H]` and the state after the last step.
    """
    outputs = []
    for t, projected_t in enumerate(cell.inputs(x_TBI)):
        hidden = state.hidden if mask_BH is None else state.hidden * mask_BH
        output, after = cell.update(cell.gates(projected_t, hidden, state), state)
        if zone is not None:
            after = zone(state, after)
            output = after.hidden
        if lengths_B is not None:
            goes_on_B1 = (t < lengths_B).unsqueeze(1)
            after = type(state)(
                *(torch.where(goes_on_B1, new, old) for old, new in zip(state, after, strict=True))
            )
            output = output * goes_on_B1
        outputs.append(output)
        state = after
    return torch.stack(outputs), state


def has_kernel(cell: Gated[Any, Any]) -> bool:
    """Whether `fused` is an exact and sensible way to run a cell where it lies now."""
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.float16:
        return False  # oneDNN's LSTM has none in this precision
    if not all(isinstance(vars(cell).get(name, cell.bias), Tensor) for name in ("weight_x", "weight_h")):
        return False  # something that is no tensor stands in for a weight
    if type(cell) not in (LSTM, RNN, GRU, ProjectedLSTM):
        return False  # a cell derived from one of them may have other equations
    match cell:
        case LSTM() | RNN():
            return True
        case GRU():
            return cell.bias_h is not None  # PyTorch's resets after the product
        case ProjectedLSTM():
            return cell.bias.is_cuda and cell.cell_clip is None and cell.projection_clip is None
        case _:
            return False


def fused(cell: Gated[Any, Any], x_TBI: Tensor, state: Any) -> tuple[Tensor, Any]:
    """The same as `unroll`, in the library's kernel (oneDNN, cuDNN, or a loop in C++).

    Under autocast a kernel may keep the state in the short type inside the call, as oneDNN's LSTM does (1 + 0.002
    stays 1 in bfloat16); what is handed on is of the given state's type again, and a chunk is short.

    Args:
        cell: An LSTM, with or without a projection, but without clips; a GRU that resets after; or an RNN.
        x_TBI: Inputs `[T, B, I]`, T at least 1.
        state: Where the sequences start; not modified.
    """
    weights = [cell.weight_x, cell.weight_h, cell.bias, _second_bias(cell)]
    if isinstance(cell, ProjectedLSTM):
        weights.append(cell.weight_projection)
    before = [part.unsqueeze(0) for part in state]
    kernel = _kernel(cell)
    output, *after = kernel(
        x_TBI,
        before if len(before) > 1 else before[0],
        weights,
        has_biases=True,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),  # else cuDNN keeps nothing for the backward pass
        bidirectional=False,
        batch_first=False,
    )
    parts = (new.squeeze(0).to(old.dtype) for old, new in zip(state, after, strict=True))
    return output, type(state)(*parts)


def _kernel(cell: Gated[Any, Any]) -> Callable[..., tuple[Tensor, ...]]:
    if isinstance(cell, RNN):
        return torch.rnn_tanh if cell.nonlinearity is torch.tanh else torch.rnn_relu
    return torch.gru if isinstance(cell, GRU) else torch.lstm


def _second_bias(cell: Gated[Any, Any]) -> Tensor:
    """What the kernels add beside the recurrent product: the GRU's candidate alone needs it."""
    if isinstance(cell, GRU) and cell.bias_h is not None:
        return torch.cat([cell.bias.new_zeros(2 * cell.units), cell.bias_h])
    return torch.zeros_like(cell.bias)
