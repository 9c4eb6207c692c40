"""The multiplicative LSTM cell of Krause et al.

Axes: B batch, I input, H hidden, M intermediate.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cells.gated import Gated, orthogonal, xavier
from model.cells.lstm import LSTMGates, LSTMState


class MultiplicativeLSTM(Gated[LSTMState, LSTMGates]):
    """An LSTM whose recurrent weights depend on the input: an intermediate m stands in the place of h_{t-1}.

        m = (W_mx x_t) * (W_mh h_{t-1})
        [i f g o] = W_x x_t + W_m m + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    W_m is `weight_h`, with blocks `[H, M]`.

    Args:
        input_size: I.
        hidden_size: H.
        intermediate: M; H unless given.

    Source: Krause, Lu, Murray & Renals 2016; the plain `o * tanh(c)` at the end as in Radford, Jozefowicz &
    Sutskever 2017. Not the matrix LSTM of 2024, which is called mLSTM too.
    """

    gate_names = ("input", "forget", "candidate", "output")

    def __init__(self, input_size: int, hidden_size: int, *, intermediate: int | None = None) -> None:
        super().__init__(input_size, hidden_size, recurrent_size=intermediate)
        self.intermediate = self.weight_h.shape[1]
        self.weight_mx = nn.Parameter(xavier(self.intermediate, input_size))
        self.weight_mh = nn.Parameter(orthogonal(self.intermediate, hidden_size))

    def initial_state(self, batch: int) -> LSTMState:
        """Zeros, each `[B, H]`."""
        zeros = self.bias.new_zeros(batch, self.hidden_size)
        return LSTMState(hidden=zeros, cell=zeros)

    def inputs(self, x: Tensor) -> Tensor:
        """W_x x + b and W_mx x: `[..., I]` to `[..., 4H + M]`."""
        return torch.cat([super().inputs(x), functional.linear(x, self.weight_mx)], dim=-1)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> LSTMGates:
        """The four gates of one step, from m instead of the hidden state."""
        projected, factor = torch.split(projected_t, [4 * self.hidden_size, self.intermediate], dim=-1)
        m = factor * functional.linear(hidden, self.weight_mh)
        z = projected + functional.linear(m, self.weight_h)
        i, f, g, o = z.to(state.cell.dtype).chunk(4, dim=-1)
        return LSTMGates(torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o))

    def update(self, gates: LSTMGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """The LSTM's."""
        cell = gates.forget * state.cell + gates.input * gates.candidate
        hidden = gates.output * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
