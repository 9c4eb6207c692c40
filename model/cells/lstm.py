"""The LSTM cell.

Axes: B batch, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.cells.gated import Gated


class LSTMState(NamedTuple):
    """What a sequence carries from step to step."""

    hidden: Tensor
    """`[B, H]`"""
    cell: Tensor
    """`[B, H]`"""


class LSTMGates(NamedTuple):
    """The gates of one step, each `[B, H]`: input, forget and output in (0, 1), candidate in (-1, 1)."""

    input: Tensor
    forget: Tensor
    candidate: Tensor
    output: Tensor


class LSTM(Gated[LSTMState, LSTMGates]):
    """Long short-term memory with a forget gate.

        [i f g o] = W_x x_t + W_h h_{t-1} + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Args:
        input_size: I.
        hidden_size: H.

    Source: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000.
    """

    gate_names = ("input", "forget", "candidate", "output")  # the order of PyTorch

    def initial_state(self, batch: int) -> LSTMState:
        """The state of `batch` sequences that have made no step: zeros `[B, H]`, typed as the weights."""
        zeros = self.bias.new_zeros(batch, self.hidden_size)
        return LSTMState(hidden=zeros, cell=zeros)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> LSTMGates:
        """The gates of one step.

        Args:
            projected_t: `inputs` of this step, `[B, 4H]`.
            hidden: The hidden state that the gates see, `[B, H]`: a recurrent dropout mask acts on it and
                leaves the state alone.
            state: The state before the step.
        """
        z = projected_t + functional.linear(hidden, self.weight_h)
        # Autocast makes the products bfloat16; the cell adds up thousands of steps and stays in its own type.
        i, f, g, o = z.to(state.cell.dtype).chunk(4, dim=-1)
        return LSTMGates(torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o))

    def update(self, gates: LSTMGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """The output `[B, H]` (the new hidden state) and the next state."""
        cell = gates.forget * state.cell + gates.input * gates.candidate
        hidden = gates.output * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
