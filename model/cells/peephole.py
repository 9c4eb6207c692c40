"""The LSTM cell whose gates look at the cell state.

Axes: B batch, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cells.gated import Gated
from model.cells.lstm import LSTMState


class PeepholeGates(NamedTuple):
    """What is known of the gates before there is a new cell, each `[B, H]`.

    Input and forget are in (0, 1), candidate in (-1, 1). The output gate looks at the new cell, so that `update`
    alone can open it: until then it is a pre-activation.
    """

    input: Tensor
    forget: Tensor
    candidate: Tensor
    output_unopened: Tensor


class PeepholeLSTM(Gated[LSTMState, PeepholeGates]):
    """An LSTM whose gates see the cell, each unit its own: the peephole weights p are diagonal.

        [i f g o] = W_x x_t + W_h h_{t-1} + b
        c_t = sigmoid(f + p_f * c_{t-1}) * c_{t-1} + sigmoid(i + p_i * c_{t-1}) * tanh(g)
        h_t = sigmoid(o + p_o * c_t) * tanh(c_t)

    The peepholes start closed, at zero: a new cell is an LSTM.

    Args:
        input_size: I.
        hidden_size: H.

    Source: Gers & Schmidhuber 2000; in this form Graves 2013, equations 7 to 11.
    """

    gate_names = ("input", "forget", "candidate", "output")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.peephole_input = nn.Parameter(torch.zeros(hidden_size))
        self.peephole_forget = nn.Parameter(torch.zeros(hidden_size))
        self.peephole_output = nn.Parameter(torch.zeros(hidden_size))

    def initial_state(self, batch: int) -> LSTMState:
        """Zeros, each `[B, H]`."""
        zeros = self.bias.new_zeros(batch, self.hidden_size)
        return LSTMState(hidden=zeros, cell=zeros)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> PeepholeGates:
        """Input and forget gate see the cell before the step."""
        z = projected_t + functional.linear(hidden, self.weight_h)
        i, f, g, o = z.to(state.cell.dtype).chunk(4, dim=-1)
        return PeepholeGates(
            input=torch.sigmoid(i + self.peephole_input * state.cell),
            forget=torch.sigmoid(f + self.peephole_forget * state.cell),
            candidate=torch.tanh(g),
            output_unopened=o,
        )

    def update(self, gates: PeepholeGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """The output gate sees the cell after the step."""
        cell = gates.forget * state.cell + gates.input * gates.candidate
        output = torch.sigmoid(gates.output_unopened + self.peephole_output * cell)
        hidden = output * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
