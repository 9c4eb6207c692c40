"""The LSTM cell with a recurrent projection, LSTMP.

Axes: B batch, I input, U units, P projection.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cells.gated import Gated, orthogonal
from model.cells.lstm import LSTMGates, LSTMState


class ProjectedLSTM(Gated[LSTMState, LSTMGates]):
    """An LSTM with many units that hands on few numbers: W_p stands between the cell and everything that reads it.

        [i f g o] = W_x x_t + W_h h_{t-1} + b
        c_t = clip(sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g))
        h_t = clip(W_p (sigmoid(o) * tanh(c_t)))

    The state is `hidden` `[B, P]` and `cell` `[B, U]`. Both clips are off unless asked for.

    Args:
        input_size: I.
        hidden_size: U, the units; the attribute `hidden_size` is P, the width of `hidden`.
        projection: P.
        cell_clip: Largest magnitude of a cell.
        projection_clip: Largest magnitude of a projected value.

    Source: Sak, Senior & Beaufays 2014, without its peepholes and its second, non-recurrent projection; clips:
    Peters et al. 2018 (ELMo).
    """

    gate_names = ("input", "forget", "candidate", "output")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        projection: int,
        cell_clip: float | None = None,
        projection_clip: float | None = None,
    ) -> None:
        super().__init__(input_size, projection, units=hidden_size)
        self.weight_projection = nn.Parameter(orthogonal(projection, hidden_size))
        self.cell_clip, self.projection_clip = cell_clip, projection_clip

    def initial_state(self, batch: int) -> LSTMState:
        """Zeros: hidden `[B, P]`, cell `[B, U]`."""
        return LSTMState(
            hidden=self.bias.new_zeros(batch, self.hidden_size), cell=self.bias.new_zeros(batch, self.units)
        )

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> LSTMGates:
        """The gates of one step, each `[B, U]`, from a hidden state `[B, P]`."""
        z = projected_t + functional.linear(hidden, self.weight_h)
        i, f, g, o = z.to(state.cell.dtype).chunk(4, dim=-1)
        return LSTMGates(torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o))

    def update(self, gates: LSTMGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """The output `[B, P]` (the new hidden state) and the next state."""
        cell = _clip(gates.forget * state.cell + gates.input * gates.candidate, self.cell_clip)
        unprojected = gates.output * torch.tanh(cell)
        projected = functional.linear(unprojected, self.weight_projection).to(cell.dtype)
        hidden = _clip(projected, self.projection_clip)
        return hidden, LSTMState(hidden, cell)


def _clip(values: Tensor, largest: float | None) -> Tensor:
    return values if largest is None else values.clamp(-largest, largest)
