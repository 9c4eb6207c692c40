"""The LSTM cell that takes in what it forgets.

Axes: B batch, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.cells.gated import Gated
from model.cells.lstm import LSTMState


class CoupledGates(NamedTuple):
    """The gates of one step, each `[B, H]`: forget and output in (0, 1), candidate in (-1, 1)."""

    forget: Tensor
    candidate: Tensor
    output: Tensor


class CoupledLSTM(Gated[LSTMState, CoupledGates]):
    """An LSTM without an input gate: the cell is a moving average, i = 1 - f.

        [f g o] = W_x x_t + W_h h_{t-1} + b
        c_t = sigmoid(f) * c_{t-1} + (1 - sigmoid(f)) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Args:
        input_size: I.
        hidden_size: H.

    Source: Greff et al. 2015 (CIFG), who give the weights to the input gate, f = 1 - i. It is the same function
    with that gate's weights and bias negated, as sigmoid(-z) = 1 - sigmoid(z).
    """

    gate_names = ("forget", "candidate", "output")

    def initial_state(self, batch: int) -> LSTMState:
        """Zeros, each `[B, H]`."""
        zeros = self.bias.new_zeros(batch, self.hidden_size)
        return LSTMState(hidden=zeros, cell=zeros)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> CoupledGates:
        """The three gates of one step."""
        z = projected_t + functional.linear(hidden, self.weight_h)
        f, g, o = z.to(state.cell.dtype).chunk(3, dim=-1)
        return CoupledGates(torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o))

    def update(self, gates: CoupledGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Every unit moves from its cell towards the candidate by the share that it forgets."""
        cell = gates.candidate + gates.forget * (state.cell - gates.candidate)
        hidden = gates.output * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
