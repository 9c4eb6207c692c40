"""Layers that read a sequence from both ends. They need its end before they give anything: not for streams.

Axes: T time, B batch, I input, H hidden.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.cells.gated import Gated
from model.layer import Conditions, new_cell, run_layer
from model.model_recipe import CellRecipe, PlainCell

BothStates = tuple[tuple[Any, Any], ...]
"""For each layer what the reader from the start came to, and what the reader from the end."""

_LSTM, _NOTHING = PlainCell(kind="lstm"), Conditions()


class Bidirectional(nn.Module):
    """Each layer reads both outputs of the one below, side by side.

    Args:
        input_size: I, of the first layer.
        hidden_size: Of every cell; H too, unless the cell projects what it hands on.
        layers: How many.
        cell: The recurrence of all layers.
        conditions: What acts on every layer.

    Raises:
        CellError: the cell cannot have these sizes, or the conditions ask for something that it has not.

    Source: Schuster & Paliwal 1997; Graves & Schmidhuber 2005. The concatenation that both readers of the next layer
    see is PyTorch's; Peters et al. 2018 keep two separate stacks.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        layers: int,
        *,
        cell: CellRecipe = _LSTM,
        conditions: Conditions = _NOTHING,
    ) -> None:
        super().__init__()
        cells: list[list[Gated[Any, Any]]] = [[], []]
        width = input_size
        for _ in range(layers):
            for readers in cells:
                readers.append(new_cell(cell, width, hidden_size, conditions))
            width = 2 * cells[0][-1].hidden_size
        self.from_start, self.from_end = map(nn.ModuleList, cells)
        self.width = width
        """2H, of the outputs."""
        self.conditions = conditions

    def initial_state(self, batch: int) -> BothStates:
        """The states of `batch` sequences that nobody has read from."""
        return tuple((one.initial_state(batch), other.initial_state(batch)) for one, other in self.by_layer())

    def forward(
        self, x_TBI: Tensor, lengths_B: Tensor | None = None, state: BothStates | None = None
    ) -> tuple[Tensor, BothStates]:
        """Read whole sequences.

        Args:
            x_TBI: Inputs `[T, B, I]`, T at least 1; what lies beyond the end of a row has no
                influence, as long as it is finite.
            lengths_B: int64, the steps of each row, 1 to T; None: T.
            state: Where the readers start; None: at zero.

        Returns:
            Outputs `[T, B, 2H]`, zero beyond the end of a row, and where each reader came to: the first of a pair at
            the row's last step, the second at its first.
        """
        y_TBH, after = x_TBI, []
        state = state or self.initial_state(x_TBI.shape[1])
        for layer, ((one, other), (start, end)) in enumerate(zip(self.by_layer(), state, strict=True)):
            read = partial(
                run_layer,
                conditions=self.conditions,
                layer=layer,
                training=self.training,
                lengths_B=lengths_B,
            )
            ahead_TBH, last = read(one, y_TBH, start)
            back_TBH, first = read(other, turned(y_TBH, lengths_B), end)
            y_TBH = torch.cat([ahead_TBH, turned(back_TBH, lengths_B)], dim=-1)
            after.append((last, first))
        return y_TBH, tuple(after)

    def by_layer(self) -> Iterator[tuple[Gated[Any, Any], Gated[Any, Any]]]:
        """The two cells of each layer."""
        pairs = zip(self.from_start, self.from_end, strict=True)
        return cast(Iterator[tuple[Gated[Any, Any], Gated[Any, Any]]], pairs)  # ModuleList cannot say it


def turned(x_TBn: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Every row from its last step to its first; what lies beyond its end stays there."""
    if lengths_B is None:
        return x_TBn.flip(0)
    t_T1 = torch.arange(len(x_TBn), device=x_TBn.device).unsqueeze(1)
    from_TB = torch.where(t_T1 < lengths_B, lengths_B - 1 - t_T1, t_T1)
    return x_TBn.take_along_dim(from_TB.unsqueeze(2), dim=0)
