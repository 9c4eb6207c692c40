"""Other weights for a cell, without touching the cell."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from model.cells.gated import Gated

Some = TypeVar("Some", bound=Gated[Any, Any])

_READ_INPUT = ("weight_x", "weight_mx", "weight_carry")
_READ_HIDDEN = ("weight_h", "weight_mh", "weight_product")


def with_weights(cell: Some, weights: Mapping[str, Any]) -> Some:
    """The same cell, some of its weights replaced; the given one is left alone.

    A copy, and not `torch.func.functional_call`, which puts the weights back when the call is over: the segments of a
    checkpointed run are computed once more after that.

    Args:
        cell: Shares all its other weights with the result.
        weights: By name; a tensor, or whatever stands in for one.
    """
    other = copy.copy(cell)
    other._parameters = {
        name: parameter for name, parameter in cell._parameters.items() if name not in weights
    }
    vars(other).update(weights)
    return other


def recurrent_weights(cell: Gated[Any, Any]) -> dict[str, Tensor]:
    """The matrices that read the hidden state, or what a cell makes of it first."""
    return _present(cell, _READ_HIDDEN)


def input_weights(cell: Gated[Any, Any]) -> dict[str, Tensor]:
    """The matrices that read the input."""
    return _present(cell, _READ_INPUT)


def blocks(cell: Gated[Any, Any], name: str) -> int:
    """How many blocks such a matrix has: one for each gate, or it belongs to none and is one."""
    return len(cell.gate_names) if name in ("weight_x", "weight_h") else 1


def _present(cell: Gated[Any, Any], names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: getattr(cell, name) for name in names if hasattr(cell, name)}
