"""The gated recurrent unit.

Axes: B batch, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cells.gated import Gated


class GRUState(NamedTuple):
    """What a sequence carries from step to step."""

    hidden: Tensor
    """`[B, H]`"""


class GRUGates(NamedTuple):
    """The gates of one step, each `[B, H]`: reset and update in (0, 1), candidate in (-1, 1)."""

    reset: Tensor
    update: Tensor
    candidate: Tensor


class GRU(Gated[GRUState, GRUGates]):
    """A gated recurrent unit; two recurrences go by the name, and they are different functions.

        [r z n] = W_x x_t + b,  [u_r u_z u_n] = W_h h_{t-1}
        r_t = sigmoid(r + u_r)
        z_t = sigmoid(z + u_z)
        g_t = tanh(n + r_t * (u_n + b_h))           reset after the product
        g_t = tanh(n + W_hn (r_t * h_{t-1}))        reset before the product
        h_t = (1 - z_t) * g_t + z_t * h_{t-1}

    The update gate z tells what is *kept*, as in PyTorch, cuDNN and ONNX. Where it is written as what is *replaced*,
    h_t = (1 - z) * h_{t-1} + z * g as in Chung et al. 2014, z is 1 minus ours: that gate's weights and bias negated.

    Args:
        input_size: I.
        hidden_size: H.
        reset_after: The reset gate acts after the product, beside a second bias b_h, and a step is one product: the
            GRU of PyTorch and cuDNN, `linear_before_reset=1` in ONNX. False: before the product, two products a step.

    Source: Cho et al. 2014, where the first version (arXiv 1406.1078v1) resets after the product and the last one
    before it; Chung et al. 2014.
    """

    gate_names = ("reset", "update", "candidate")  # the order of PyTorch

    def __init__(self, input_size: int, hidden_size: int, *, reset_after: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        # Of the other gates' biases, two would only add up; this one is scaled by the reset gate.
        self.bias_h = nn.Parameter(torch.zeros(hidden_size)) if reset_after else None

    def initial_state(self, batch: int) -> GRUState:
        """Zeros `[B, H]`."""
        return GRUState(hidden=self.bias.new_zeros(batch, self.hidden_size))

    def gates(self, projected_t: Tensor, hidden: Tensor, state: GRUState) -> GRUGates:
        """The gates of one step; reset and update are open by the time the candidate is made."""
        r, z, n = projected_t.to(state.hidden.dtype).chunk(3, dim=-1)
        if self.bias_h is None:
            # The method, not torch.split: what stands in for a weight (see `model.untied`) has it too.
            weight_rz, weight_n = self.weight_h.split([2 * self.units, self.units])  # type: ignore[no-untyped-call]
            u_r, u_z = functional.linear(hidden, weight_rz).chunk(2, dim=-1)
            reset = torch.sigmoid(r + u_r)
            candidate = torch.tanh(n + functional.linear(reset * hidden, weight_n))
        else:
            u_r, u_z, u_n = functional.linear(hidden, self.weight_h).chunk(3, dim=-1)
            reset = torch.sigmoid(r + u_r)
            candidate = torch.tanh(n + reset * (u_n + self.bias_h))
        return GRUGates(reset, torch.sigmoid(z + u_z), candidate)

    def update(self, gates: GRUGates, state: GRUState) -> tuple[Tensor, GRUState]:
        """The output `[B, H]`, which is the whole state."""
        hidden = (1 - gates.update) * gates.candidate + gates.update * state.hidden
        return hidden, GRUState(hidden)
