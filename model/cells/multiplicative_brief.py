"""The LSTM cell whose forget gate sees the product of hidden state and input.

Axes: B batch, I input, H hidden; I = H.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cells.gated import CellError, Gated, orthogonal
from model.cells.lstm import LSTMGates, LSTMState


class MultiplicativeBriefLSTM(Gated[LSTMState, LSTMGates]):
    """An LSTM with a term of second order in its forget gate, W_mf (h_{t-1} * x_t).

        [i f g o] = W_x x_t + W_h h_{t-1} + b
        c_t = sigmoid(f + W_mf (h_{t-1} * x_t)) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Args:
        input_size: I, which has to be H: hidden state and input are multiplied number by number.
        hidden_size: H.

    Raises:
        CellError: the two sizes differ.

    Source: no paper has exactly this; `multiplicative` is the one that is known as the multiplicative LSTM.
    """

    gate_names = ("input", "forget", "candidate", "output")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        if input_size != hidden_size:
            raise CellError(
                "multiplicative-brief multiplies hidden state and input: "
                f"expected as many inputs as hidden units, got {input_size} and {hidden_size}"
            )
        super().__init__(input_size, hidden_size)
        self.weight_product = nn.Parameter(orthogonal(hidden_size, hidden_size))

    def initial_state(self, batch: int) -> LSTMState:
        """Zeros, each `[B, H]`."""
        zeros = self.bias.new_zeros(batch, self.hidden_size)
        return LSTMState(hidden=zeros, cell=zeros)

    def inputs(self, x: Tensor) -> Tensor:
        """W_x x + b and x itself, which the gates need once more: `[..., H]` to `[..., 5H]`."""
        return torch.cat([super().inputs(x), x], dim=-1)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> LSTMGates:
        """The four gates of one step."""
        projected, x_t = torch.split(projected_t, [4 * self.hidden_size, self.hidden_size], dim=-1)
        z = projected + functional.linear(hidden, self.weight_h)
        i, f, g, o = z.to(state.cell.dtype).chunk(4, dim=-1)
        f = f + functional.linear(hidden * x_t, self.weight_product)
        return LSTMGates(torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o))

    def update(self, gates: LSTMGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """The LSTM's."""
        cell = gates.forget * state.cell + gates.input * gates.candidate
        hidden = gates.output * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
