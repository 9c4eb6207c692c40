"""Dropout that draws once and keeps to it: of units over all time steps, of symbols, of single weights.

Whatever remains is scaled up by 1 / (1 - share), so that nothing has to change for evaluation.

Axes: T time, B batch, n units, V vocabulary, E embedding.
"""

from torch import Tensor
from torch.nn import functional

from model.substitute import Some, recurrent_weights, with_weights


def mask(share: float, like: Tensor, *shape: int) -> Tensor:
    """Zeros for the given share, 1 / (1 - share) for the rest, typed and placed as `like`."""
    return functional.dropout(like.new_ones(shape), share)


def locked(x_TBn: Tensor, share: float) -> Tensor:
    """Drop the same units of a row in all time steps.

    Source: Gal & Ghahramani 2016 (variational dropout); Merity et al. 2018 (locked dropout).
    """
    return x_TBn * mask(share, x_TBn, *x_TBn.shape[1:])


def without_symbols(table_VE: Tensor, share: float) -> Tensor:
    """Drop whole symbols of an embedding.

    Source: Gal & Ghahramani 2016; Merity et al. 2018.
    """
    return table_VE * mask(share, table_VE, len(table_VE), 1)


def without_connections(cell: Some, share: float) -> Some:
    """The cell without a share of the single weights of its recurrent matrices; the given cell is left alone.

    Source: Merity et al. 2018 (weight drop), after Wan et al. 2013 (DropConnect).
    """
    weights = recurrent_weights(cell)
    return with_weights(cell, {name: functional.dropout(weight, share) for name, weight in weights.items()})
