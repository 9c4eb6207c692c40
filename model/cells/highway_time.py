"""The LSTM cell with a highway over time.

Axes: B batch, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.cells.gated import Gated
from model.cells.lstm import LSTMState


class HighwayTimeGates(NamedTuple):
    """The gates of one step, each `[B, H]`: candidate in (-1, 1), the others in (0, 1)."""

    input: Tensor
    forget: Tensor
    candidate: Tensor
    output: Tensor
    transform: Tensor


class HighwayTimeLSTM(Gated[LSTMState, HighwayTimeGates]):
    """An LSTM whose hidden state may stay as it was: a zoneout that is learned and looks at the input.

        [i f g o t] = W_x x_t + W_h h_{t-1} + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(t) * sigmoid(o) * tanh(c_t) + (1 - sigmoid(t)) * h_{t-1}

    Args:
        input_size: I.
        hidden_size: H.

    Source: no paper has exactly this. Highway connections: Srivastava, Greff & Schmidhuber 2015; the papers that put
    them into an LSTM lead them through the layers, see `highway_depth`.
    """

    gate_names = ("input", "forget", "candidate", "output", "transform")

    def initial_state(self, batch: int) -> LSTMState:
        """Zeros, each `[B, H]`."""
        zeros = self.bias.new_zeros(batch, self.hidden_size)
        return LSTMState(hidden=zeros, cell=zeros)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> HighwayTimeGates:
        """The five gates of one step."""
        z = projected_t + functional.linear(hidden, self.weight_h)
        i, f, g, o, t = z.to(state.cell.dtype).chunk(5, dim=-1)
        return HighwayTimeGates(
            torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o), torch.sigmoid(t)
        )

    def update(self, gates: HighwayTimeGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """What passes the transform gate is new, the rest is the hidden state before the step."""
        cell = gates.forget * state.cell + gates.input * gates.candidate
        new = gates.output * torch.tanh(cell)
        hidden = gates.transform * new + (1 - gates.transform) * state.hidden
        return hidden, LSTMState(hidden, cell)
