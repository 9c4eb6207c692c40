"""What the gates of a cell share: one product for all of them, a block of rows each.

Axes: B batch, I input, H hidden, U units (the cell's own width), G gates, R what the recurrent weight reads.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.errors import CarouselError
from model.cells.cell import Cell, Gates, State


class CellError(CarouselError):
    """A cell cannot have these sizes or options."""


class Gated(Cell[State, Gates]):
    """A cell whose gates are blocks of the same three parameters, in the order of `gate_names`.

        z = W_x x_t + W_h h_{t-1} + b

    `weight_x` is `[G U, I]`, `weight_h` `[G U, R]`, `bias` `[G U]`: one bias a gate, where PyTorch and ONNX have two.
    A new cell has Xavier blocks in `weight_x`, orthogonal ones in `weight_h` and zero biases, but for the forget
    gate's, which is 1. What else a cell has is a parameter of its own.

    Args:
        input_size: I.
        hidden_size: H.
        units: U; H unless the cell projects what it hands on.
        recurrent_size: R; H unless something stands in the place of the hidden state.

    Source: Glorot & Bengio 2010 (Xavier); Saxe, McClelland & Ganguli 2014 (orthogonal); Gers, Schmidhuber &
    Cummins 2000, Jozefowicz, Zaremba & Sutskever 2015 (forget bias).
    """

    gate_names: ClassVar[tuple[str, ...]]
    """The gates in the order of their blocks."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        units: int | None = None,
        recurrent_size: int | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.units = units or hidden_size
        recurrent_size = recurrent_size or hidden_size
        # A block at a time: the fused matrix would give the wrong fan, and no orthogonal block.
        self.weight_x = nn.Parameter(torch.cat([xavier(self.units, input_size) for _ in self.gate_names]))
        self.weight_h = nn.Parameter(
            torch.cat([orthogonal(self.units, recurrent_size) for _ in self.gate_names])
        )
        self.bias = nn.Parameter(torch.cat([_bias(gate, self.units) for gate in self.gate_names]))

    def inputs(self, x: Tensor) -> Tensor:
        """W_x x + b, for one step or for all time steps at once: `[..., I]` to `[..., G U]`."""
        return functional.linear(x, self.weight_x, self.bias)

    def blocks(self, parameter: Tensor) -> dict[str, Tensor]:
        """The blocks of `weight_x`, `weight_h` or `bias` by the name of their gate; views, to be written to."""
        return dict(zip(self.gate_names, parameter.chunk(len(self.gate_names)), strict=True))


def xavier(rows: int, columns: int) -> Tensor:
    """A block `[rows, columns]`, uniform with the variance 2 / (rows + columns)."""
    return nn.init.xavier_uniform_(torch.empty(rows, columns))


def orthogonal(rows: int, columns: int) -> Tensor:
    """A block `[rows, columns]` with orthonormal rows or columns, whichever are fewer."""
    return nn.init.orthogonal_(torch.empty(rows, columns))


def _bias(gate: str, units: int) -> Tensor:
    return torch.ones(units) if gate == "forget" else torch.zeros(units)
