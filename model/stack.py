"""Layers of cells, one above the other.

Axes: T time, B batch, I input, H hidden.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from model.cells.gated import Gated
from model.layer import Conditions, new_cell, run_layer
from model.model_recipe import CellRecipe, PlainCell

StackState = tuple[Any, ...]
"""The state of each layer: its cell's, a named tuple."""

_LSTM, _NOTHING = PlainCell(kind="lstm"), Conditions()


class Stack(nn.Module):
    """Each layer reads the outputs of the one below.

    Args:
        input_size: I, of the first layer.
        hidden_size: Of every layer; H too, unless the cell projects what it hands on.
        layers: How many.
        cell: The recurrence of all layers.
        share: Layers that read equally many numbers have the same weights: all of them where I = H, else all from the
            second on. Each layer keeps a state of its own.
        conditions: What acts on every layer.

    Raises:
        CellError: the cell cannot have these sizes, or the conditions ask for something that it has not.

    Source: stacking, Graves 2013; dropout on the non-recurrent connections only, Zaremba et al. 2014.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        layers: int,
        *,
        cell: CellRecipe = _LSTM,
        share: bool = False,
        conditions: Conditions = _NOTHING,
    ) -> None:
        super().__init__()
        cells = [new_cell(cell, input_size, hidden_size, conditions)]
        self.width = cells[0].hidden_size
        """H, of the outputs."""
        while len(cells) < layers and not (share and cells[-1].input_size == self.width):
            cells.append(new_cell(cell, self.width, hidden_size, conditions))
        self.cells = nn.ModuleList(cells)
        self.layers, self.conditions = layers, conditions

    def initial_state(self, batch: int) -> StackState:
        """The state of `batch` sequences that have made no step, a layer at a time."""
        return tuple(cell.initial_state(batch) for cell in self.by_layer())

    def forward(
        self, x_TBI: Tensor, state: StackState, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, StackState]:
        """Advance every sequence by T steps.

        Args:
            x_TBI: Inputs `[T, B, I]`, T at least 1.
            state: A state for each layer; not modified.
            lengths_B: int64, the steps of each row; None: T. As `model.over_time.unroll` takes them.

        Returns:
            Outputs of the last layer `[T, B, H]` and the state after the last step.
        """
        y_TBH, after = x_TBI, []
        for layer, (cell, before) in enumerate(zip(self.by_layer(), state, strict=True)):
            y_TBH, last = run_layer(
                cell,
                y_TBH,
                before,
                self.conditions,
                layer=layer,
                training=self.training,
                lengths_B=lengths_B,
            )
            after.append(last)
        return y_TBH, tuple(after)

    def by_layer(self) -> Iterator[Gated[Any, Any]]:
        """The cell of each layer, one that is shared as often as it is used."""
        for layer in range(self.layers):
            cell = self.cells[min(layer, len(self.cells) - 1)]
            assert isinstance(cell, Gated)  # what ModuleList cannot say of its members
            yield cell
