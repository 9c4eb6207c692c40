"""Zoneout: units of the state that stay what they were for a step.

Axes: B batch, n units of one part of the state.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.cells.cell import Cell
from model.cells.gated import CellError
from model.model_recipe import ZoneoutRecipe

Zone = Callable[[Any, Any], Any]
"""From the states before and after a step to the one that is carried."""


def zoneout(cell: Cell[Any, Any], shares: ZoneoutRecipe, training: bool) -> Zone | None:
    """What zoneout makes of a step of a cell; None: nothing.

        training:   s_t = z_t * s_{t-1} + (1 - z_t) * s'_t,  z_t ~ Bernoulli(p) for every unit and step
        evaluation: s_t = p * s_{t-1} + (1 - p) * s'_t, the expectation

    s' is what the cell makes of its state, so that the new hidden state comes from the new cell state before that
    one is zoned.

    Args:
        cell: For the parts its state has.
        shares: p of each part.
        training: Draw, or take the expectation.

    Raises:
        CellError: a share is given of a part that the state has not.

    Source: Krueger et al. 2016.
    """
    parts = {part: share for part, share in shares.model_dump().items() if share}
    fields = type(cell.initial_state(0))._fields
    for part in parts:
        if part not in fields:
            raise CellError(
                f"zoneout.{part}: the state of {type(cell).__name__} is {', '.join(fields)} and nothing else"
            )
    if not parts:
        return None
    mix = _drawn if training else torch.lerp

    def zone(before: Any, after: Any) -> Any:
        mixed = {
            part: mix(getattr(after, part), getattr(before, part), share) for part, share in parts.items()
        }
        return after._replace(**mixed)

    return zone


def _drawn(after_Bn: Tensor, before_Bn: Tensor, share: float) -> Tensor:
    stays_Bn = torch.empty_like(after_Bn, dtype=torch.bool).bernoulli_(share)
    return torch.where(stays_Bn, before_Bn, after_Bn)
