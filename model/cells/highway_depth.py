"""The LSTM cell with a highway from the layer below.

Axes: B batch, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cells.gated import Gated, xavier
from model.cells.lstm import LSTMState


class HighwayDepthGates(NamedTuple):
    """The gates of one step, each `[B, H]`: candidate in (-1, 1), the others in (0, 1); and what is carried past."""

    input: Tensor
    forget: Tensor
    candidate: Tensor
    output: Tensor
    transform: Tensor
    carried: Tensor
    """W_c x_t, of any size."""


class HighwayDepthLSTM(Gated[LSTMState, HighwayDepthGates]):
    """An LSTM that may let its input pass: a deep stack of them has a short way through.

        [i f g o r] = W_x x_t + W_h h_{t-1} + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(r) * sigmoid(o) * tanh(c_t) + (1 - sigmoid(r)) * W_c x_t

    Args:
        input_size: I.
        hidden_size: H.

    Source: He, Lee, Lewis & Zettlemoyer 2017; the carried input has no bias, as in the paper.
    """

    gate_names = ("input", "forget", "candidate", "output", "transform")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_carry = nn.Parameter(xavier(hidden_size, input_size))

    def initial_state(self, batch: int) -> LSTMState:
        """Zeros, each `[B, H]`."""
        zeros = self.bias.new_zeros(batch, self.hidden_size)
        return LSTMState(hidden=zeros, cell=zeros)

    def inputs(self, x: Tensor) -> Tensor:
        """W_x x + b and W_c x: `[..., I]` to `[..., 6H]`."""
        return torch.cat([super().inputs(x), functional.linear(x, self.weight_carry)], dim=-1)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> HighwayDepthGates:
        """The five gates of one step."""
        width = self.hidden_size
        projected, carried = torch.split(projected_t.to(state.cell.dtype), [5 * width, width], dim=-1)
        z = projected + functional.linear(hidden, self.weight_h)
        i, f, g, o, r = z.chunk(5, dim=-1)
        return HighwayDepthGates(
            torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o), torch.sigmoid(r), carried
        )

    def update(self, gates: HighwayDepthGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """What passes the transform gate is the LSTM's, the rest is the layer's input."""
        cell = gates.forget * state.cell + gates.input * gates.candidate
        new = gates.output * torch.tanh(cell)
        hidden = gates.transform * new + (1 - gates.transform) * gates.carried
        return hidden, LSTMState(hidden, cell)
