"""The plain recurrent network, which everything else here is measured against.

Axes: B batch, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.cells.gated import CellError, Gated


class RNNState(NamedTuple):
    """What a sequence carries from step to step."""

    hidden: Tensor
    """`[B, H]`"""


class RNNGates(NamedTuple):
    """There are no gates: the candidate `[B, H]` is what comes next."""

    candidate: Tensor


class RNN(Gated[RNNState, RNNGates]):
    """A recurrent network without gates.

        h_t = tanh(W_x x_t + W_h h_{t-1} + b)

    Args:
        input_size: I.
        hidden_size: H.
        nonlinearity: `tanh`, or `relu` in its place.

    Raises:
        CellError: another nonlinearity.

    Source: Elman 1990.
    """

    gate_names = ("candidate",)

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh") -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise CellError(f"expected the nonlinearity tanh or relu, got {nonlinearity!r}")
        super().__init__(input_size, hidden_size)
        self.nonlinearity = torch.tanh if nonlinearity == "tanh" else torch.relu

    def initial_state(self, batch: int) -> RNNState:
        """Zeros `[B, H]`."""
        return RNNState(hidden=self.bias.new_zeros(batch, self.hidden_size))

    def gates(self, projected_t: Tensor, hidden: Tensor, state: RNNState) -> RNNGates:
        """The whole step."""
        z = projected_t + functional.linear(hidden, self.weight_h)
        return RNNGates(self.nonlinearity(z.to(state.hidden.dtype)))

    def update(self, gates: RNNGates, state: RNNState) -> tuple[Tensor, RNNState]:  # noqa: ARG002 - nothing is kept
        """The output `[B, H]`, which is the whole state."""
        return gates.candidate, RNNState(gates.candidate)
