"""Layers of cells, one above the other.

Axes: T time, B batch, I input, H hidden.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from model.cells.lstm import LSTM, LSTMState
from model.over_time import fused


class Stack(nn.Module):
    """Each layer reads the outputs of the one below, with dropout between layers and none after the last.

    Args:
        input_size: I, of the first layer.
        hidden_size: H, of every layer.
        layers: How many.
        dropout: Share of outputs that are dropped between two layers while training, in [0, 1).

    Source: stacking, Graves 2013; dropout on the non-recurrent connections only, Zaremba et al. 2014.
    """

    def __init__(self, input_size: int, hidden_size: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [input_size] + layers * [hidden_size]
        self.cells = nn.ModuleList(LSTM(below, size) for below, size in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def initial_state(self, batch: int) -> tuple[LSTMState, ...]:
        """The state of `batch` sequences that have made no step, a layer at a time."""
        return tuple(cell.initial_state(batch) for cell in self._layers())

    def forward(self, x_TBI: Tensor, state: tuple[LSTMState, ...]) -> tuple[Tensor, tuple[LSTMState, ...]]:
        """Advance every sequence by T steps.

        Args:
            x_TBI: Inputs `[T, B, I]`, T at least 1.
            state: A state for each layer; not modified.

        Returns:
            Outputs of the last layer `[T, B, H]` and the state after the last step.
        """
        y_TBH, after = x_TBI, []
        for layer, (cell, before) in enumerate(zip(self._layers(), state, strict=True)):
            below = self.dropout(y_TBH) if layer else y_TBH
            y_TBH, last = fused(cell, below, before)
            after.append(last)
        return y_TBH, tuple(after)

    def _layers(self) -> Iterable[LSTM]:
        return cast(Iterable[LSTM], self.cells)  # what ModuleList cannot say of its members
