"""The LSTM cell of a tree: a node goes on from all of its children at once.

Axes: B batch of nodes, K children of each, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.cells.gated import Gated
from model.cells.lstm import LSTMState


class ChildSumGates(NamedTuple):
    """The gates of one node: forget `[B, K, H]`, one a child, the others `[B, H]`; candidate in (-1, 1)."""

    forget: Tensor
    input: Tensor
    candidate: Tensor
    output: Tensor


class ChildSumLSTM(Gated[LSTMState, ChildSumGates]):
    """A Tree-LSTM for any number of children in any order; with one child it is the LSTM.

        s = h_1 + ... + h_K
        [f i g o] = W_x x + b,  each child has a forget gate of its own:
        c = sigmoid(i + W_i s) * tanh(g + W_g s) + sum over k of sigmoid(f + W_f h_k) * c_k
        h = sigmoid(o + W_o s) * tanh(c)

    The state *before* a step is that of the children, `[B, K, H]` each, the state after it the node's own, `[B, H]`.
    A child that is not there is zero: it adds nothing to either sum. A leaf has none, K = 0. `model.tree` runs the cell
    over whole trees.

    Args:
        input_size: I.
        hidden_size: H.

    Source: Tai, Socher & Manning 2015, equations 2 to 8.
    """

    gate_names = (
        "forget",
        "input",
        "candidate",
        "output",
    )  # forget first: it alone sees the children one by one

    def initial_state(self, batch: int) -> LSTMState:
        """The children of `batch` leaves: none, `[B, 0, H]`."""
        none = self.bias.new_zeros(batch, 0, self.hidden_size)
        return LSTMState(hidden=none, cell=none)

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LSTMState) -> ChildSumGates:
        """The gates of a node.

        Args:
            projected_t: `inputs` of the node, `[B, 4H]`.
            hidden: Hidden states of its children that the gates see, `[B, K, H]`.
            state: The states of its children, `[B, K, H]` each.
        """
        one_and_three = [self.units, 3 * self.units]
        f, igo = torch.split(projected_t.to(state.cell.dtype), one_and_three, dim=-1)
        weight_f, weight_igo = torch.split(self.weight_h, one_and_three)
        forget = torch.sigmoid(f.unsqueeze(-2) + functional.linear(hidden, weight_f))
        i, g, o = (igo + functional.linear(hidden.sum(dim=-2), weight_igo)).chunk(3, dim=-1)
        return ChildSumGates(forget, torch.sigmoid(i), torch.tanh(g), torch.sigmoid(o))

    def update(self, gates: ChildSumGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """The output `[B, H]` and the state of the node, `[B, H]` each."""
        cell = gates.input * gates.candidate + (gates.forget * state.cell).sum(dim=-2)
        hidden = gates.output * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
