"""The LSTM cell.

Axes: T time, B batch, I input, H hidden. Gate order: i, f, g, o (PyTorch's); one bias a gate.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cells.cell import Cell


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


class LSTM(Cell[LSTMState, LSTMGates]):
    """Long short-term memory with a forget gate.

        [i f g o] = W_x x_t + W_h h_{t-1} + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    `inputs`, `gates` and `update` are these equations; a step is their composition.

    Args:
        input_size: I.
        hidden_size: H.

    Source: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_x = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_h = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights, a gate at a time: the fused matrix would give the wrong fan and no orthogonal block.

        Source: Glorot & Bengio 2010 (`weight_x`); Saxe et al. 2014 (`weight_h`, orthogonal); forget bias 1:
        Gers et al. 2000, Jozefowicz et al. 2015.
        """
        for block in self.weight_x.chunk(4):
            nn.init.xavier_uniform_(block)
        for block in self.weight_h.chunk(4):
            nn.init.orthogonal_(block)
        _, forget, _, _ = self.bias.zero_().chunk(4)
        forget.fill_(1.0)

    def initial_state(self, batch: int) -> LSTMState:
        """The state of `batch` sequences that have made no step: zeros `[B, H]`, typed as the weights."""
        zeros = self.weight_h.new_zeros(batch, self.weight_h.shape[1])
        return LSTMState(hidden=zeros, cell=zeros)

    def inputs(self, x: Tensor) -> Tensor:
        """W_x x + b, for one step or for all time steps at once: `[..., I]` to `[..., 4H]`."""
        return functional.linear(x, self.weight_x, self.bias)

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
